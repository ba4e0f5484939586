// Kernels of rope.h for CUDA devices.
//
// Bound by memory: e bytes read and written of each number that turns, e the element size (the
// angles of a token are read once for all its heads, from L1 but the first time). A thread takes a
// pack of the first half of a head and the pack of the second that turns with it.
#include "ops/rope_cuda.h"

#include "ops/cuda_kernel.h"
#include "ops/rope_kernel.h"

namespace {

using namespace lorry::ops;          // NOLINT: this file is one name space of kernels
using namespace lorry::ops::device;  // NOLINT

template <typename T, int n>
__device__ void rotate(const RopeArguments& args) {
  const uint32_t pairs = args.half / n, head_items = pairs + args.rest / n;
  const uint32_t row_items = args.heads * head_items, index = flat_index();
  const uint32_t row = index / row_items, in_row = index % row_items;
  if (row >= static_cast<uint32_t>(args.rows)) return;
  const uint32_t head = in_row / head_items, item = in_row % head_items;
  const T* const x = static_cast<const T*>(args.x) + row * args.x_row + head * args.x_head;
  T* const out = static_cast<T*>(args.out) + row * args.out_row + head * args.out_head;
  if (item >= pairs) {
    const uint32_t at = 2 * args.half + (item - pairs) * n;
    store(out + at, load<n>(x + at));
    return;
  }
  const uint32_t first = item * n, second = first + args.half;
  const int64_t angle = static_cast<int64_t>(row) * args.half + first;
  Pack<T, n> a = load<n>(x + first), b = load<n>(x + second);
  turn(a, b, load<n>(static_cast<const T*>(args.cos) + angle),
       load<n>(static_cast<const T*>(args.sin) + angle), args.sign);
  store(out + first, a);
  store(out + second, b);
}

}  // namespace

// The names that rope_cuda.cc looks up: rope_{dtype}_{scalar, vector}.
#define LORRY_ROPE_KERNELS(dtype, T)                                                      \
  extern "C" __global__ void rope_##dtype##_scalar(LORRY_ARGUMENTS(RopeArguments) args) { \
    rotate<T, 1>(args);                                                                   \
  }                                                                                       \
  extern "C" __global__ void rope_##dtype##_vector(LORRY_ARGUMENTS(RopeArguments) args) { \
    rotate<T, 16 / sizeof(T)>(args);                                                      \
  }

LORRY_ROPE_KERNELS(float32, float)
LORRY_ROPE_KERNELS(bfloat16, __nv_bfloat16)
LORRY_ROPE_KERNELS(float16, __half)
