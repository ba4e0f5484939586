// What rope_cuda.cc hands to the kernels of rope_cuda.cu, by value. Included by both compilers.
#pragma once

#include <cstdint>

namespace lorry::ops {

/// Rows of `heads` heads; the first 2 * half numbers of each head turn, the `rest` after them is
/// copied. x and out may be the same memory: then rest is 0. Strides in elements.
struct RopeArguments {
  const void* x;
  void* out;
  const void *cos, *sin;  ///< (rows, half)
  int64_t x_row, x_head, out_row, out_head;
  int32_t rows, heads, half, rest;
  float sign;  ///< -1: turn back
};

}  // namespace lorry::ops
