// Kernels of residual_rms_norm.h for CUDA devices.
//
// All three are bound by memory. Bytes per element, e of it the element size, weights from L2:
//   forward   4 e (x, residual, normed and sum); without a residual 2 e
//   backward  4 e (sum, d_normed, d_sum, d_x); the inverse rms is computed again, which costs
//             nothing while the row is in registers, instead of saved
//   d_weight  4 bytes a block and column more, written once and read once
// Loads and stores are 16 bytes a thread where width and pointers allow it, all loads of a row are
// in flight before the first is used, and a row stays in registers between sum and scaling.
// Sums are taken in a fixed order: the same inputs give the same bits on the same device.
#include "ops/residual_rms_norm_cuda.h"

#include "ops/cuda_kernel.h"
#include "ops/rms_norm_kernel.h"

namespace {

using namespace lorry::ops;          // NOLINT: this file is one name space of kernels
using namespace lorry::ops::device;  // NOLINT

template <typename T, int n>
__device__ Pack<T, n> add(const Pack<T, n>& a, const Pack<T, n>& b) {
  Pack<T, n> out;
#pragma unroll
  for (int j = 0; j < n; ++j) out.values[j] = narrow<T>(widen(a.values[j]) + widen(b.values[j]));
  return out;
}

/// Which rows a thread works on, and which packs of them.
template <bool wide>
struct Place {
  int lane;      ///< first pack of the row
  int64_t row;   ///< first row
  int64_t step;  ///< rows of the whole grid

  __device__ explicit Place(int team) {
    const int teams = wide ? 1 : blockDim.x / team;
    lane = wide ? threadIdx.x : threadIdx.x % team;
    row = static_cast<int64_t>(blockIdx.x) * teams + (wide ? 0 : threadIdx.x / team);
    step = static_cast<int64_t>(gridDim.x) * teams;
  }
};

template <typename T, int n, bool wide>
__device__ void forward(const RmsNormForwardArguments& args) {
  using P = Pack<T, n>;
  const Place<wide> place(args.team);
  const Factor factor(args);
  const bool adds = args.residual != nullptr;
  // A team without a row still takes part in the sums of its warp.
  const int packs = place.row < args.rows ? args.width / n : 0;
  const int64_t start = place.row * (args.width / n);
  const P* const x = static_cast<const P*>(args.x) + start;
  const P* const residual = static_cast<const P*>(args.residual) + (adds ? start : 0);
  P* const sum = static_cast<P*>(args.sum) + (adds ? start : 0);
  P* const normed = static_cast<P*>(args.normed) + start;
  const P* const weight = static_cast<const P*>(args.weight);

  P kept = zeros<T, n>(), kept_weight = kept;
  float2 total{0.0f, 0.0f};
  if (place.lane < packs) {
    kept = x[place.lane];
    kept_weight = weight[place.lane];
    if (adds) sum[place.lane] = kept = add(kept, residual[place.lane]);
    total.x = squares(kept);
  }
  for (int i = place.lane + args.team; i < packs; i += args.team) {
    P pack = x[i];
    if (adds) sum[i] = pack = add(pack, residual[i]);
    total.x += squares(pack);
  }
  total = sum_team<wide>(total, args.team, 0);
  const float scale = rsqrtf(total.x / static_cast<float>(args.width) + args.eps);
  if (place.lane < packs) {
    normed[place.lane] = normalize(kept, kept_weight, scale, factor);
  }
  const P* const stored = adds ? sum : x;
  for (int i = place.lane + args.team; i < packs; i += args.team) {
    normed[i] = normalize(stored[i], weight[i], scale, factor);
  }
}

/// Adds a pack's part of d_weight.
template <typename T, int n>
__device__ void add_weight(Pack<float, n>& d_weight, const Pack<T, n>& x, const Pack<T, n>& grad,
                           float scale, Factor factor) {
#pragma unroll
  for (int j = 0; j < n; ++j) {
    d_weight.values[j] += widen(grad.values[j]) * factor.quotient(x.values[j], scale);
  }
}

/// Writes what this block (wide) or warp (narrow: its teams hold the same columns) has summed.
template <int n, bool wide>
__device__ void write_part(Pack<float, n>& d_weight, float* part, int packs, int team, int lane) {
  if constexpr (!wide) {
    for (int offset = team; offset < kWarp; offset *= 2) {
#pragma unroll
      for (int j = 0; j < n; ++j) {
        d_weight.values[j] += __shfl_xor_sync(0xffffffffu, d_weight.values[j], offset);
      }
    }
    if (static_cast<int>(threadIdx.x % kWarp) >= team) return;
  }
  if (lane < packs) reinterpret_cast<Pack<float, n>*>(part)[lane] = d_weight;
}

/// The row that starts at pack `start`, from pack `lane + team` on: its gradient, and its part of
/// d_weight, kept in memory where the thread's own pack has registers.
template <typename T, int n>
__device__ void far_gradient(const RmsNormBackwardArguments& args, int64_t start, int packs,
                             int lane, float* part, bool first_row, float scale, float pull) {
  using P = Pack<T, n>;
  const Factor factor(args);
  const P* const weight = static_cast<const P*>(args.weight);
  for (int i = lane + args.team; i < packs; i += args.team) {
    const P x = static_cast<const P*>(args.sum)[start + i];
    const P grad = static_cast<const P*>(args.d_normed)[start + i];
    const P d_sum =
        args.d_sum == nullptr ? zeros<T, n>() : static_cast<const P*>(args.d_sum)[start + i];
    static_cast<P*>(args.d_x)[start + i] = gradient(x, grad, weight[i], d_sum, scale, pull, factor);
    if (part == nullptr) continue;
    Pack<float, n>& stored = reinterpret_cast<Pack<float, n>*>(part)[i];
    Pack<float, n> d_weight = first_row ? zeros<float, n>() : stored;
    add_weight(d_weight, x, grad, scale, factor);
    stored = d_weight;
  }
}

template <typename T, int n, bool wide>
__device__ void backward(const RmsNormBackwardArguments& args) {
  using P = Pack<T, n>;
  const Place<wide> place(args.team);
  const Factor factor(args);
  const int row_packs = args.width / n, lane = place.lane;
  const P* const weight = static_cast<const P*>(args.weight);
  const int64_t index =
      wide ? blockIdx.x
           : static_cast<int64_t>(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  float* const part =
      args.d_weight_parts == nullptr ? nullptr : args.d_weight_parts + index * args.width;
  Pack<float, n> d_weight = zeros<float, n>();
  const P kept_weight = lane < row_packs ? weight[lane] : zeros<T, n>();

  // All teams of a block make the same number of turns, so that all take part in the sums.
  const int turns = static_cast<int>((args.rows + place.step - 1) / place.step);
  for (int turn = 0; turn < turns; ++turn) {
    const int64_t row = place.row + turn * place.step, start = row * row_packs;
    const int packs = row < args.rows ? row_packs : 0;
    const P* const x = static_cast<const P*>(args.sum) + start;
    const P* const grad = static_cast<const P*>(args.d_normed) + start;

    P kept_x = zeros<T, n>(), kept_grad = kept_x, kept_sum = kept_x;
    float2 sums{0.0f, 0.0f};
    if (lane < packs) {
      kept_x = x[lane];
      kept_grad = grad[lane];
      if (args.d_sum != nullptr) kept_sum = static_cast<const P*>(args.d_sum)[start + lane];
      sums = row_sums(kept_x, kept_grad, kept_weight, factor);
    }
    for (int i = lane + args.team; i < packs; i += args.team) {
      const float2 more = row_sums(x[i], grad[i], weight[i], factor);
      sums.x += more.x;
      sums.y += more.y;
    }
    sums = sum_team<wide>(sums, args.team, turn);
    const float width = static_cast<float>(args.width);
    const float scale = rsqrtf(sums.x / width + args.eps);
    const float pull = sums.y * scale * scale / width;
    if (lane < packs) {
      static_cast<P*>(args.d_x)[start + lane] =
          gradient(kept_x, kept_grad, kept_weight, kept_sum, scale, pull, factor);
      if (part != nullptr) add_weight(d_weight, kept_x, kept_grad, scale, factor);
    }
    if constexpr (wide) {
      far_gradient<T, n>(args, start, packs, lane, part, turn == 0, scale, pull);
    }
  }
  if (part != nullptr) write_part<n, wide>(d_weight, part, row_packs, args.team, lane);
}

/// Columns of `parts` summed: threads (kReduceColumns, kReduceRows), a block for each
/// kReduceColumns.
template <typename T>
__device__ void reduce(const RmsNormReduceArguments& args) {
  __shared__ float rows[kReduceRows][kReduceColumns];
  const int column = blockIdx.x * kReduceColumns + threadIdx.x;
  float sum = 0;
  if (column < args.width) {
    for (int64_t part = threadIdx.y; part < args.count; part += kReduceRows) {
      sum += args.parts[part * args.width + column];
    }
  }
  rows[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= args.width) return;
  for (int row = 1; row < kReduceRows; ++row) sum += rows[row][threadIdx.x];
  static_cast<T*>(args.d_weight)[column] = narrow<T>(sum);
}

}  // namespace

// The names that residual_rms_norm_cuda.cc looks up: rms_norm_{operation}_{dtype}_{narrow,
// wide}_{scalar, vector}. The bound of one block a multiprocessor leaves a wide kernel 64
// registers: without it the compiler spills to reach an occupancy that the loads in flight do not
// need.
#define LORRY_ROW_KERNELS(dtype, T, layout, n, width, wide, threads)                              \
  extern "C" __global__ void __launch_bounds__(threads, 1)                                        \
      rms_norm_forward_##dtype##_##width##_##layout(LORRY_ARGUMENTS(RmsNormForwardArguments) a) { \
    forward<T, n, wide>(a);                                                                       \
  }                                                                                               \
  extern "C" __global__ void __launch_bounds__(threads, 1)                                        \
      rms_norm_backward_##dtype##_##width##_##layout(LORRY_ARGUMENTS(RmsNormBackwardArguments)    \
                                                         a) {                                     \
    backward<T, n, wide>(a);                                                                      \
  }

#define LORRY_KERNELS(dtype, T)                                                      \
  LORRY_ROW_KERNELS(dtype, T, scalar, 1, narrow, false, kNarrowThreads)              \
  LORRY_ROW_KERNELS(dtype, T, scalar, 1, wide, true, kWideThreads)                   \
  LORRY_ROW_KERNELS(dtype, T, vector, 16 / sizeof(T), narrow, false, kNarrowThreads) \
  LORRY_ROW_KERNELS(dtype, T, vector, 16 / sizeof(T), wide, true, kWideThreads)      \
  extern "C" __global__ void __launch_bounds__(kReduceRows* kReduceColumns)          \
      rms_norm_reduce_##dtype(LORRY_ARGUMENTS(RmsNormReduceArguments) args) {        \
    reduce<T>(args);                                                                 \
  }

LORRY_KERNELS(float32, float)
LORRY_KERNELS(bfloat16, __nv_bfloat16)
LORRY_KERNELS(float16, __half)
