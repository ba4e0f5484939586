// Applying rotary position embedding; model/rope.h has the frequencies.
#pragma once

#include <ATen/core/Tensor.h>

namespace lorry::ops {

/// Rotates the pairs (i, i + R/2) of the first R numbers of each head by angles whose cos and sin
/// are given; the other D - R numbers stay as they are.
///
/// x: (T, heads, D); cos, sin: (T, 1, R/2) in x's dtype. Differentiable in x alone.
/// Source: Su et al. 2021, arXiv:2104.09864; pairs and rounding as in `transformers`' rotate_half.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

/// The same in place on the first `heads` heads of each row of x: (T, n), n >= heads * D, rows
/// contiguous. Consumes x: nobody else may read it, not even the backward pass of what made it (a
/// linear map's does not). One node of autograd's graph, which keeps nothing of x.
at::Tensor rotate_in_place(at::Tensor x, int64_t heads, int64_t head_dim, const at::Tensor& cos,
                           const at::Tensor& sin);

}  // namespace lorry::ops
