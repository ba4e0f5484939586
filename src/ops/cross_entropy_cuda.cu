// Kernels of cross_entropy.h for CUDA devices: a block for each row.
//
// Bound by memory. Bytes a logit, e the element size: 3 e, a pass that reads (largest number and
// sum of powers together) and one that reads and writes, less what of the row is still in L2 then.
// libtorch's ops take eight passes, most of them over float32 copies. Sums are taken in a fixed
// order.
#include "ops/cross_entropy_cuda.h"

#include "ops/cuda_kernel.h"

namespace {

using namespace lorry::ops;          // NOLINT: this file is one name space of kernels
using namespace lorry::ops::device;  // NOLINT

/// What the softmax sees of a logit, rounded as operation by operation, and its slope in it.
template <typename T>
struct Transform {
  float scale, cap;

  __device__ explicit Transform(const CrossEntropyArguments& args)
      : scale(args.logit_scale), cap(args.cap) {}
  __device__ float value(T x) const {
    const float z = scale == 1.0f ? widen(x) : rounded<T>(widen(x) * scale);
    return cap > 0 ? rounded<T>(rounded<T>(tanhf(rounded<T>(z / cap))) * cap) : z;
  }
  __device__ float slope(float value) const {
    const float share = value / cap;
    return cap > 0 ? scale * (1.0f - share * share) : scale;
  }
};

/// The largest of some numbers, and the sum of their powers over it.
struct Powers {
  float top = -INFINITY, sum = 0;
};

/// NaN reaches the sum.
template <typename T, int n>
__device__ void add(Powers& all, const Pack<T, n>& pack, Transform<T> transform) {
  float z[n], top = all.top;
#pragma unroll
  for (int j = 0; j < n; ++j) {
    z[j] = transform.value(pack.values[j]);
    top = fmaxf(top, z[j]);
  }
  // No number yet but -infinity: their powers are 0, but only over a finite number.
  const float base = top == -INFINITY ? 0.0f : top;
  float sum = all.sum * expf(all.top - base);
#pragma unroll
  for (int j = 0; j < n; ++j) sum += expf(z[j] - base);
  all = {top, sum};
}

/// The largest number of the threads of the block.
__device__ float largest_of_block(float value) {
  __shared__ float parts[kWarp];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int warps = blockDim.x / kWarp;
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  if (lane == 0) parts[warp] = value;
  __syncthreads();
  value = lane < warps ? parts[lane] : -INFINITY;
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  return value;
}

template <typename T, int n>
__device__ void cross_entropy(const CrossEntropyArguments& args) {
  T* const row = static_cast<T*>(args.logits) + blockIdx.x * args.row;
  const int packs = args.width / n;
  const Transform<T> transform(args);
  const int64_t target = args.targets[blockIdx.x];
  const float at_target = transform.value(row[target]);
  Powers mine;
  for (int i = threadIdx.x; i < packs; i += blockDim.x) add(mine, load<n>(row + i * n), transform);
  const float top = largest_of_block(mine.top);
  const float base = top == -INFINITY ? 0.0f : top;
  // No thread writes before all have read the target's logit: the barriers of the sums.
  const float sum = sum_team<true>({mine.sum * expf(mine.top - base), 0.0f}, kWarp, 0).x;
  const float factor = args.scale / sum;
  for (int i = threadIdx.x; i < packs; i += blockDim.x) {
    Pack<T, n> pack = load<n>(row + i * n);
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const float z = transform.value(pack.values[j]);
      float gradient = expf(z - top) * factor;
      if (i * n + j == target) gradient = args.scale * (expf(z - top) / sum - 1.0f);
      pack.values[j] = narrow<T>(gradient * transform.slope(z));
    }
    store(row + i * n, pack);
  }
  if (threadIdx.x == 0) {
    args.losses[blockIdx.x] = static_cast<double>(logf(sum)) + top - at_target;
  }
}

}  // namespace

// The names that cross_entropy_cuda.cc looks up: cross_entropy_{dtype}_{scalar, vector}.
#define LORRY_LOSS_KERNELS(dtype, T, layout, n)                                       \
  extern "C" __global__ void __launch_bounds__(kLossThreads)                          \
      cross_entropy_##dtype##_##layout(LORRY_ARGUMENTS(CrossEntropyArguments) args) { \
    cross_entropy<T, n>(args);                                                        \
  }

LORRY_FOR_LAYOUTS(LORRY_LOSS_KERNELS)
