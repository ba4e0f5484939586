// The differentiable operations of a block that are not matrix products. On a CPU they run as one
// pass each (cpu_kernels.h), elsewhere as libtorch operations; the rounding is that of
// `transformers` either way.
#pragma once

#include <ATen/core/Tensor.h>

namespace lorry::model {

/// x / rms(x) * weight over the last dimension. The mean square is taken in float32, the quotient
/// rounded to x's dtype, then multiplied. weight is of x's dtype.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// Rotates pairs (i, i + D/2) of x (T, heads, D) by angles whose cos and sin are (T, 1, D/2), in
/// x's dtype. Differentiable in x alone.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace lorry::model
