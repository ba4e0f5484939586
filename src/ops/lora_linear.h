// A linear map with a low-rank update of each of its modules, as one node of autograd's graph.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "ops/weight.h"

namespace lorry::ops {

// T tokens, r a module's rank, R the ranks of all modules together.

/// One of the modules that share an input (q, k and v; gate and up; or one alone).
struct LoraModule {
  Weight weight;              ///< frozen, of any format that has a gradient
  at::Tensor a, b;            ///< (r, in), (out, r) in x's dtype; undefined: the weight alone
  double scale = 1;           ///< on the update
  at::Tensor a_grad, b_grad;  ///< like a and b, float32; undefined: a and b are frozen
};

/// y = x W^T + bias + scale (x A^T) B^T of each module, side by side.
///
/// x: (T, in), float32, bfloat16 or float16. Returns (T, out of all modules) in x's dtype; where
/// the modules' tensors are adjacent in memory (adjacent_rows), their products are one. Rounding: x
/// W^T is rounded to x's dtype, then the update is added to it.
///
/// Differentiable in x. A and B are no inputs of the graph: the backward pass adds their gradients
/// to a_grad and b_grad. It keeps x and x A^T (nothing where there is no A) and the weights as they
/// are stored. With `x_again` it does not keep x but asks for it once more, without a graph.
/// Source: Hu et al. 2021, arXiv:2106.09685.
at::Tensor lora_linear(const at::Tensor& x, std::vector<LoraModule> modules,
                       std::function<at::Tensor()> x_again = {});

/// Matrices of equal width whose rows follow each other in memory, as one matrix; undefined where
/// they do not, or one is not contiguous. One-dimensional tensors alike.
at::Tensor adjacent_rows(const std::vector<at::Tensor>& parts);

}  // namespace lorry::ops
