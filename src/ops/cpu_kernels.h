// Loops over contiguous CPU memory for what libtorch does in many passes. No autograd and no checks
// here: each operation's own header (rope.h, cross_entropy.h) has the contract.
#pragma once

#include <ATen/core/Tensor.h>

namespace lorry::ops::cpu {

// T tokens, H query heads, K key/value heads, D head size.

/// Whether the kernels take this tensor's device and dtype (CPU; float32 or bfloat16).
inline bool takes(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

/// x: (T, heads, D); cos, sin: (T, 1, R/2) in x's dtype, R <= D. `sign` -1 turns back.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, float sign);
/// The same in place on the first `heads` heads of each row of x: (T, n), n >= heads * d.
void rotate_in_place(at::Tensor x, int64_t heads, int64_t d, const at::Tensor& cos,
                     const at::Tensor& sin, float sign);

/// As ops::cross_entropy_.
at::Tensor cross_entropy_(at::Tensor& logits, const at::Tensor& targets, double scale);

}  // namespace lorry::ops::cpu
