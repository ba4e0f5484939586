// For tests: enough of CUDA's language for g++ to compile a file of kernels, so that their results
// can be checked without a GPU. Blocks run one after another; the threads of one are fibers of one
// thread of the program, switched at barriers and shuffles (cuda_on_host.cc).
//
// Exact in what it runs: indices, masks, order of sums, number types. It says nothing of races
// between barriers, memory spaces or speed, and every thread of a block must reach the same number
// of barriers and shuffles.
#pragma once

#include <vector_types.h>

#include <cmath>
#include <cstring>

#define LORRY_ARGUMENTS(T) const T&
#undef __shared__
#define __shared__ static       // NOLINT: blocks run one after another
#define __launch_bounds__(...)  // NOLINT

inline dim3 blockIdx, gridDim, blockDim, threadIdx;  // NOLINT(readability-identifier-naming)

namespace lorry::ops::host {

/// Lets all other threads of the block come to their next barrier or shuffle.
void barrier();
/// Puts down `value`, and after a barrier returns what the thread `offset` (xor) away has put down.
float exchange(float value, int offset);

}  // namespace lorry::ops::host

inline void __syncthreads() { lorry::ops::host::barrier(); }                // NOLINT
inline float __shfl_xor_sync(unsigned /*mask*/, float value, int offset) {  // NOLINT
  return lorry::ops::host::exchange(value, offset);
}
inline float __fmul_rn(float a, float b) { return a * b; }  // NOLINT
inline float __fadd_rn(float a, float b) { return a + b; }  // NOLINT
inline float __uint_as_float(unsigned bits) {               // NOLINT
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
