// Kernels of norm_rope.h for CUDA devices.
//
// Bound by memory. Bytes a number of the joined product, e the element size: forward 2 e, backward
// 3 e. In operations of their own, norms and rotations move 4 e and 6 e, and as much again to lay
// queries and keys apart.
#include "ops/norm_rope_cuda.h"

#include "ops/cuda_kernel.h"
#include "ops/rms_norm_kernel.h"
#include "ops/rope_kernel.h"

namespace {

using namespace lorry::ops;          // NOLINT: this file is one name space of kernels
using namespace lorry::ops::device;  // NOLINT

/// What this thread works on.
template <int n>
struct Item {
  bool exists, turns, is_normed;
  int first, second;  ///< of its packs in the head
  int64_t row, in, out, angle;
  const void* weight;

  __device__ explicit Item(const NormRopeArguments& args) {
    const int team = threadIdx.x / args.team, lane = threadIdx.x % args.team;
    const uint32_t index = blockIdx.x * (blockDim.x / args.team) + team;
    const int head = index % args.all, pairs = args.half / n;
    row = index / args.all;
    exists = row < args.rows && lane < pairs + (args.d - 2 * args.half) / n;
    turns = exists && lane < pairs;
    first = turns ? lane * n : 2 * args.half + (lane - pairs) * n;
    second = first + args.half;
    in = row * args.x_row + head * args.d;
    out = (row * args.all + head) * args.d;
    angle = row * args.half + first;
    is_normed = head < args.q_heads + args.k_heads;
    weight = head < args.q_heads ? args.q_weight : args.k_weight;
  }
};

/// Both packs of an item; zeros where there is none.
template <typename T, int n>
struct Packs {
  Pack<T, n> a = zeros<T, n>(), b = zeros<T, n>();

  __device__ Packs(const void* from, int64_t start, const Item<n>& item) {
    const T* const head = static_cast<const T*>(from) + start;
    if (item.exists) a = load<n>(head + item.first);
    if (item.turns) b = load<n>(head + item.second);
  }
  __device__ void turn_by(const NormRopeArguments& args, const Item<n>& item, float sign) {
    turn(a, b, load<n>(static_cast<const T*>(args.cos) + item.angle),
         load<n>(static_cast<const T*>(args.sin) + item.angle), sign);
  }
  __device__ void write(void* to, const Item<n>& item) const {
    T* const head = static_cast<T*>(to) + item.out;
    if (item.exists) store(head + item.first, a);
    if (item.turns) store(head + item.second, b);
  }
};

template <typename T, int n>
__device__ void forward(const NormRopeArguments& args) {
  const Item<n> item(args);
  const Factor factor(args);
  Packs<T, n> x(args.x, item.in, item);
  const float2 sums = sum_lanes({squares(x.a) + squares(x.b), 0.0f}, args.team);
  if (item.is_normed) {
    const Packs<T, n> weight(item.weight, 0, item);
    const float scale = rsqrtf(sums.x / static_cast<float>(args.d) + args.eps);
    x.a = normalize(x.a, weight.a, scale, factor);
    x.b = normalize(x.b, weight.b, scale, factor);
    if (item.turns) x.turn_by(args, item, 1.0f);
  }
  x.write(args.out, item);
}

template <typename T, int n>
__device__ void backward(const NormRopeArguments& args) {
  const Item<n> item(args);
  const Factor factor(args);
  const Packs<T, n> x(args.x, item.in, item), weight(item.weight, 0, item);
  Packs<T, n> grad(args.grad, item.out, item);
  if (item.is_normed && item.turns) grad.turn_by(args, item, -1.0f);
  const float2 a = row_sums(x.a, grad.a, weight.a, factor);
  const float2 b = row_sums(x.b, grad.b, weight.b, factor);
  const float2 sums = sum_lanes({a.x + b.x, a.y + b.y}, args.team);
  if (item.is_normed) {
    const float d = static_cast<float>(args.d), scale = rsqrtf(sums.x / d + args.eps);
    const float pull = sums.y * scale * scale / d;
    grad.a = gradient(x.a, grad.a, weight.a, zeros<T, n>(), scale, pull, factor);
    grad.b = gradient(x.b, grad.b, weight.b, zeros<T, n>(), scale, pull, factor);
  }
  grad.write(args.out, item);
}

}  // namespace

// The names that norm_rope_cuda.cc looks up: norm_rope_{forward, backward}_{dtype}.
#define LORRY_NORM_ROPE_KERNELS(dtype, T)                                   \
  extern "C" __global__ void __launch_bounds__(kNormRopeThreads)            \
      norm_rope_forward_##dtype(LORRY_ARGUMENTS(NormRopeArguments) args) {  \
    forward<T, 16 / sizeof(T)>(args);                                       \
  }                                                                         \
  extern "C" __global__ void __launch_bounds__(kNormRopeThreads)            \
      norm_rope_backward_##dtype(LORRY_ARGUMENTS(NormRopeArguments) args) { \
    backward<T, 16 / sizeof(T)>(args);                                      \
  }

LORRY_NORM_ROPE_KERNELS(float32, float)
LORRY_NORM_ROPE_KERNELS(bfloat16, __nv_bfloat16)
LORRY_NORM_ROPE_KERNELS(float16, __half)
