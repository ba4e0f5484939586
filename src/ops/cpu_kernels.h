// Loops over contiguous CPU memory for what libtorch does in many passes. No autograd and no checks
// here: each operation's own header (rms_norm.h, rope.h) has the contract.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/rms_norm.h"

namespace lorry::ops::cpu {

// T tokens, H query heads, K key/value heads, D head size.

/// Whether the kernels take this tensor's device and dtype (CPU; float32 or bfloat16).
inline bool takes(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

/// As ops::rms_norm, over the last dimension.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, RmsNormKind kind);
/// Gradient of rms_norm in x.
at::Tensor rms_norm_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                             double eps, RmsNormKind kind);

/// x: (T, heads, D); cos, sin: (T, 1, R/2) in x's dtype, R <= D. `sign` -1 turns back.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, float sign);

}  // namespace lorry::ops::cpu
