// Kernels that widen quantised weights on CUDA devices: a thread for each pack of 8 numbers.
//
// Bound by memory: e bytes written a number, 1/2 (NF4, and 1/64 of scales) or 1 (fp8) read. What is
// computed is rounded as on a CPU, bit for bit: products and sums stay apart.
#include "ops/dequantize_cuda.h"

#include "ops/cuda_kernel.h"

namespace {

using namespace lorry::ops;          // NOLINT: this file is one name space of kernels
using namespace lorry::ops::device;  // NOLINT

constexpr int kPack = kDequantizePack, kBlock = 64, kScaleBlock = 256, kCodes = 16;

template <typename T>
__device__ void widen_nf4(const WidenNf4Arguments& args) {
  __shared__ float table[kCodes];  // a bank for each code
  if (threadIdx.x < kCodes) table[threadIdx.x] = args.table[threadIdx.x];
  __syncthreads();
  const int64_t first = static_cast<int64_t>(flat_index()) * kPack;
  if (first >= args.numbers) return;
  const int64_t block = first / kBlock;
  const float scale = __fadd_rn(__fmul_rn(args.scale_numbers[args.scales[block]],
                                          args.second_scales[1 + block / kScaleBlock]),
                                args.second_scales[0]);
  const auto codes = load<kPack / 2>(args.codes + first / 2);
  Pack<T, kPack> out;
#pragma unroll
  for (int j = 0; j < kPack / 2; ++j) {  // the high half first
    out.values[2 * j] = narrow<T>(table[codes.values[j] >> 4] * scale);
    out.values[2 * j + 1] = narrow<T>(table[codes.values[j] & 15] * scale);
  }
  store(static_cast<T*>(args.out) + first, out);
}

/// Of an e4m3 code that is no NaN: its exponent's bias is 120 less than float32's.
__device__ float widen_e4m3(uint8_t code) {
  const float size = __uint_as_float(static_cast<uint32_t>(code & 0x7f) << 20) * 0x1p120f;
  return code & 0x80 ? -size : size;
}

template <typename T, int n>
__device__ void widen_fp8(const WidenFp8Arguments& args) {
  const int64_t first = static_cast<int64_t>(flat_index()) * n;
  if (first >= args.numbers) return;
  const float scale = args.scales[flat_index() / (args.width / n)];
  const auto codes = load<n>(args.codes + first);
  Pack<T, n> out;
#pragma unroll
  for (int j = 0; j < n; ++j) out.values[j] = narrow<T>(widen_e4m3(codes.values[j]) * scale);
  store(static_cast<T*>(args.out) + first, out);
}

}  // namespace

// The names that dequantize_cuda.cc looks up: widen_nf4_{dtype}, widen_fp8_{dtype}_{scalar,
// vector}.
#define LORRY_WIDEN_KERNELS(dtype, T)                                                           \
  extern "C" __global__ void widen_nf4_##dtype(LORRY_ARGUMENTS(WidenNf4Arguments) args) {       \
    widen_nf4<T>(args);                                                                         \
  }                                                                                             \
  extern "C" __global__ void widen_fp8_##dtype##_scalar(LORRY_ARGUMENTS(WidenFp8Arguments) a) { \
    widen_fp8<T, 1>(a);                                                                         \
  }                                                                                             \
  extern "C" __global__ void widen_fp8_##dtype##_vector(LORRY_ARGUMENTS(WidenFp8Arguments) a) { \
    widen_fp8<T, kPack>(a);                                                                     \
  }

LORRY_WIDEN_KERNELS(float32, float)
LORRY_WIDEN_KERNELS(bfloat16, __nv_bfloat16)
LORRY_WIDEN_KERNELS(float16, __half)
