// bf16 matrices in oneDNN's own layout, which reads at memory speed where few rows are multiplied:
// two to three times at::linear's rate at one row.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/weight.h"

namespace lorry::ops::cpu {

/// Whether `matrix` can be packed: bfloat16 on a CPU whose libtorch has oneDNN's bf16 products.
bool can_pack(const at::Tensor& matrix);
/// A dense weight in oneDNN's layout; the dense matrix is not kept.
Weight pack(const Weight& dense);
/// x: (..., in) bfloat16. No gradient.
at::Tensor linear_packed(const at::Tensor& x, const Weight& weight);

}  // namespace lorry::ops::cpu
