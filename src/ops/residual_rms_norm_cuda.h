// What residual_rms_norm_cuda.cc hands to the kernels of residual_rms_norm_cuda.cu: one structure a
// launch, by value. Included by both compilers, so it holds plain data alone.
//
// Pointers are to device memory of `rows` contiguous rows of `width` elements, all of the kernel's
// element type unless said. A row is shared by `team` threads: for the narrow kernels a power of
// two up to 32 within a warp, for the wide ones the whole block.
#pragma once

#include <cstdint>

namespace lorry::ops {

// A thread keeps one 16-byte group of its row (one element in the scalar kernels) in registers;
// what a row has beyond `team` of them is read twice.

/// Threads a block: of narrow rows, and at most of a wide one.
constexpr int kNarrowThreads = 128, kWideThreads = 1024;

/// Rows of the thread block that adds up the partial sums of d_weight, and columns it covers.
constexpr int kReduceRows = 16, kReduceColumns = 32;

struct RmsNormForwardArguments {
  const void* x;
  const void* residual;  ///< null: none, and `sum` is not written
  const void* weight;    ///< width elements
  void* sum;
  void* normed;
  int64_t rows;
  int32_t width, team;
  float eps;
  float offset;             ///< added to the weights
  int32_t rounds_quotient;  ///< whether the quotient is rounded before it is multiplied
};

struct RmsNormBackwardArguments {
  const void* sum;
  const void* weight;
  const void* d_sum;  ///< null: zero
  const void* d_normed;
  void* d_x;
  float*
      d_weight_parts;  ///< null: not wanted; else (blocks * warps, width) narrow, (blocks, width)
  int64_t rows;
  int32_t width, team;
  float eps;
  float offset;             ///< added to the weights
  int32_t rounds_quotient;  ///< whether the quotient is rounded before it is multiplied
};

struct RmsNormReduceArguments {
  const float* parts;  ///< (count, width)
  void* d_weight;      ///< width elements
  int32_t count, width;
};

}  // namespace lorry::ops
