// What norm_rope_cuda.cc hands to the kernels of norm_rope_cuda.cu, by value. Included by both
// compilers.
#pragma once

#include <cstdint>

namespace lorry::ops {

constexpr int kNormRopeThreads = 128;

/// Rows of `all` heads of `d` numbers: q_heads that have q_weight, k_heads that have k_weight, and
/// others, which are copied. A head is shared by `team` lanes of a warp, a power of two; each has a
/// pack of the first `half` numbers and the one of the second half that turns with it, or a pack of
/// the rest.
struct NormRopeArguments {
  const void* x;     ///< the joined product
  const void* grad;  ///< backward alone: contiguous
  void* out;         ///< contiguous
  const void *q_weight, *k_weight;
  const void *cos, *sin;  ///< (rows, half)
  int64_t x_row;          ///< from one row of x to the next, in elements
  int32_t rows, q_heads, k_heads, all, d, half, team;
  float eps;
  float offset;             ///< added to the weights
  int32_t rounds_quotient;  ///< whether the quotient is rounded before it is multiplied
};

}  // namespace lorry::ops
