// Dropout whose mask is a function of the token, not of a generator's state.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lorry::ops {

/// x with each number set to 0 with probability p, the others multiplied by 1 / (1 - p).
///
/// x: (T, C), any float dtype; keys: (T) int64 on x's device; 0 <= p < 1. Whether (t, c) is kept
/// depends on keys[t], `module` and c alone: the same token has the same mask in whatever step it
/// is computed, and in a second pass over it. The same on every device. Differentiable in x.
/// Source of the hash: Chris Wellons, "hash-prospector", lowbias32 (public domain).
at::Tensor dropout(const at::Tensor& x, double p, const at::Tensor& keys, uint64_t module);

/// The mask alone: (T, C) bool, true where a number is kept.
at::Tensor dropout_mask(const at::Tensor& keys, int64_t columns, double p, uint64_t module);

}  // namespace lorry::ops
