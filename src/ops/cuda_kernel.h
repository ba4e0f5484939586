// What every file of kernels (*_cuda.cu) begins with: number types, 16-byte packs, sums over the
// threads of a row. No header of libtorch may be included beside it (nvcc takes half a minute for
// one). Tests compile the same files for the host: see cuda_on_host.h.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#ifdef __CUDACC__
/// The one parameter of a kernel, a structure in the device's constant memory.
#define LORRY_ARGUMENTS(T) const __grid_constant__ T
#else
#include "ops/cuda_on_host.h"
#endif

/// X(dtype, type, layout, elements at once) for the kernels of one operation, in the order of
/// layout_kernel (cuda_launch.h).
#define LORRY_FOR_LAYOUTS(X)            \
  X(float32, float, scalar, 1)          \
  X(float32, float, vector, 4)          \
  X(bfloat16, __nv_bfloat16, scalar, 1) \
  X(bfloat16, __nv_bfloat16, vector, 8) \
  X(float16, __half, scalar, 1)         \
  X(float16, __half, vector, 8)

namespace lorry::ops::device {

constexpr int kWarp = 32;

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float widen(__half x) { return __half2float(x); }

template <typename T>
__device__ T narrow(float x);
template <>
__device__ inline float narrow<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline __half narrow<__half>(float x) {
  return __float2half_rn(x);
}

/// x as a tensor of T would hold it.
template <typename T>
__device__ float rounded(float x) {
  return widen(narrow<T>(x));
}

/// n elements that are loaded and stored at once.
template <typename T, int n>
struct alignas(sizeof(T) * n) Pack {
  T values[n];
};

template <typename T, int n>
__device__ Pack<T, n> zeros() {
  Pack<T, n> out;
#pragma unroll
  for (int j = 0; j < n; ++j) out.values[j] = narrow<T>(0.0f);
  return out;
}

template <int n, typename T>
__device__ Pack<T, n> load(const T* from) {
  return *reinterpret_cast<const Pack<T, n>*>(from);
}
template <int n, typename T>
__device__ void store(T* to, const Pack<T, n>& pack) {
  *reinterpret_cast<Pack<T, n>*>(to) = pack;
}

/// This thread's number in a grid of a thread for each pack (cuda_launch.h, flat_shape).
__device__ inline uint32_t flat_index() { return blockIdx.x * blockDim.x + threadIdx.x; }

/// Sums over `team` neighbouring lanes (a power of two), the same bits in each of them. All lanes
/// of the warp take part.
__device__ inline float2 sum_lanes(float2 value, int team) {
  for (int offset = team / 2; offset > 0; offset /= 2) {
    value.x += __shfl_xor_sync(0xffffffffu, value.x, offset);
    value.y += __shfl_xor_sync(0xffffffffu, value.y, offset);
  }
  return value;
}

/// Sums over the threads of a row: `team` lanes, or (wide) the block. All threads of the block call
/// it the same number of times. `turn` counts the calls: two sets of partial sums, used in turn,
/// need one barrier a call instead of two.
template <bool wide>
__device__ float2 sum_team(float2 value, int team, int turn) {
  if constexpr (!wide) return sum_lanes(value, team);
  __shared__ float2 parts[2][kWarp];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int warps = blockDim.x / kWarp;
  value = sum_lanes(value, kWarp);
  if (lane == 0) parts[turn & 1][warp] = value;
  __syncthreads();
  value = lane < warps ? parts[turn & 1][lane] : float2{0.0f, 0.0f};
  return sum_lanes(value, kWarp);
}

}  // namespace lorry::ops::device
