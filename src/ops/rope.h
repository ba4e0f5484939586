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

}  // namespace lorry::ops
