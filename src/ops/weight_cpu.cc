// Compiled without contraction (CMakeLists.txt): a fused multiply-add would round differently from
// the implementations that these numbers must equal.
#include "ops/weight_cpu.h"

#include <ATen/Parallel.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "ops/cpu_math.h"
#include "ops/nf4.h"

namespace lorry::ops::cpu {

const float kNf4Numbers[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

namespace {

constexpr int64_t kBlock = kNf4Block, kBlockBytes = kBlock / 2;
constexpr int64_t kGrainBlocks = 512;  // blocks that are worth another thread

/// Where a code ends: halfway to the next one. A number on a threshold belongs to the lower code.
struct Thresholds {
  float above[15];
  Thresholds() {
    for (int i = 0; i < 15; ++i) above[i] = (kNf4Numbers[i] + kNf4Numbers[i + 1]) / 2;
  }
};

LORRY_INLINE uint32_t magnitude_bits(float x) { return std::bit_cast<uint32_t>(x) & 0x7fffffff; }

/// Largest magnitude; as bits, where NaN is larger than infinity.
LORRY_INLINE float largest_of(const float* x) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < kBlock; ++i) largest = std::max(largest, magnitude_bits(x[i]));
  return std::bit_cast<float>(largest);
}

LORRY_CPU_CLONES void encode_blocks(const float* x, int64_t blocks, const float* above,
                                    uint8_t* codes, float* largest) {
  for (int64_t b = 0; b < blocks; ++b, x += kBlock, codes += kBlockBytes) {
    largest[b] = largest_of(x);
    const float inverse = 1.0f / std::max(largest[b], 1e-38f);
    int32_t code[kBlock];
    for (int64_t i = 0; i < kBlock; ++i) {
      const float scaled = std::min(std::max(x[i] * inverse, -1.0f), 1.0f);
      int32_t below = 0;
      for (int t = 0; t < 15; ++t) below += scaled > above[t];
      code[i] = below;
    }
    for (int64_t i = 0; i < kBlockBytes; ++i) {
      codes[i] = static_cast<uint8_t>(code[2 * i] << 4 | code[2 * i + 1]);
    }
  }
}

LORRY_INLINE void store(float x, float* to) { *to = x; }
LORRY_INLINE void store(float x, Bf16* to) { *to = narrow<Bf16>(x); }
LORRY_INLINE void store(float x, c10::Half* to) { *to = c10::Half(x); }

/// A vector of 16 bytes, which a shuffle instruction looks up 16 codes in.
using Bytes = uint8_t __attribute__((vector_size(16)));

LORRY_INLINE Bytes interleaved_low(Bytes a, Bytes b) {
  return __builtin_shuffle(a, b, Bytes{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23});
}
LORRY_INLINE Bytes interleaved_high(Bytes a, Bytes b) {
  return __builtin_shuffle(a, b,
                           Bytes{8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31});
}

using Pairs = uint16_t __attribute__((vector_size(16)));

/// The numbers of 16 codes, from a table whose first, second, ... bytes lie apart.
LORRY_INLINE void look_up(Bytes codes, const Bytes (&planes)[2], uint8_t* out) {
  const Bytes a = __builtin_shuffle(planes[0], codes), b = __builtin_shuffle(planes[1], codes);
  const Bytes numbers[2] = {interleaved_low(a, b), interleaved_high(a, b)};
  std::memcpy(out, numbers, sizeof numbers);
}
LORRY_INLINE void look_up(Bytes codes, const Bytes (&planes)[4], uint8_t* out) {
  Bytes x[4];
  for (int i = 0; i < 4; ++i) x[i] = __builtin_shuffle(planes[i], codes);
  constexpr Pairs kLow{0, 8, 1, 9, 2, 10, 3, 11}, kHigh{4, 12, 5, 13, 6, 14, 7, 15};
  const auto a = reinterpret_cast<Pairs>(interleaved_low(x[0], x[1]));
  const auto b = reinterpret_cast<Pairs>(interleaved_low(x[2], x[3]));
  const auto c = reinterpret_cast<Pairs>(interleaved_high(x[0], x[1]));
  const auto d = reinterpret_cast<Pairs>(interleaved_high(x[2], x[3]));
  const Pairs numbers[4] = {__builtin_shuffle(a, b, kLow), __builtin_shuffle(a, b, kHigh),
                            __builtin_shuffle(c, d, kLow), __builtin_shuffle(c, d, kHigh)};
  std::memcpy(out, numbers, sizeof numbers);
}

template <typename T>
LORRY_INLINE void decode_block(const uint8_t* codes, const T (&table)[16], T* out) {
  uint8_t bytes[sizeof table], apart[sizeof(T)][16];
  std::memcpy(bytes, table, sizeof table);
  for (size_t i = 0; i < sizeof table; ++i) apart[i % sizeof(T)][i / sizeof(T)] = bytes[i];
  Bytes planes[sizeof(T)];
  std::memcpy(planes, apart, sizeof planes);
  auto* to = reinterpret_cast<uint8_t*>(out);
  for (int64_t i = 0; i < kBlockBytes; i += 16) {
    Bytes packed;
    std::memcpy(&packed, codes + i, sizeof packed);
    const Bytes first = packed >> 4, second = packed & 15;
    look_up(interleaved_low(first, second), planes, to + 2 * i * sizeof(T));
    look_up(interleaved_high(first, second), planes, to + (2 * i + 16) * sizeof(T));
  }
}

template <typename T>
LORRY_INLINE void decode_blocks(const uint8_t* codes, const float* scales, int64_t blocks, T* out) {
  for (int64_t b = 0; b < blocks; ++b) {
    T table[16];
    for (int i = 0; i < 16; ++i) store(kNf4Numbers[i] * scales[b], &table[i]);
    decode_block(codes + b * kBlockBytes, table, out + b * kBlock);
  }
}

// A template cannot be cloned for instruction sets.
LORRY_CPU_CLONES void decode_range(const uint8_t* codes, const float* scales, int64_t blocks,
                                   float* out) {
  decode_blocks(codes, scales, blocks, out);
}
LORRY_CPU_CLONES void decode_range(const uint8_t* codes, const float* scales, int64_t blocks,
                                   Bf16* out) {
  decode_blocks(codes, scales, blocks, out);
}
LORRY_CPU_CLONES void decode_range(const uint8_t* codes, const float* scales, int64_t blocks,
                                   c10::Half* out) {
  decode_blocks(codes, scales, blocks, out);
}

/// An e4m3 number, which is no NaN: its exponent's bias is 120 less than float32's.
LORRY_INLINE float widen_e4m3(uint8_t x) {
  const uint32_t sign = static_cast<uint32_t>(x & 0x80) << 24;
  const float size = std::bit_cast<float>(static_cast<uint32_t>(x & 0x7f) << 20) * 0x1p120f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(size) | sign);
}

template <typename T>
LORRY_INLINE void decode_fp8_row(const uint8_t* codes, float scale, int64_t width, T* out) {
  for (int64_t i = 0; i < width; ++i) store(widen_e4m3(codes[i]) * scale, out + i);
}

LORRY_CPU_CLONES void decode_row(const uint8_t* codes, float scale, int64_t width, float* out) {
  decode_fp8_row(codes, scale, width, out);
}
LORRY_CPU_CLONES void decode_row(const uint8_t* codes, float scale, int64_t width, Bf16* out) {
  decode_fp8_row(codes, scale, width, out);
}
LORRY_CPU_CLONES void decode_row(const uint8_t* codes, float scale, int64_t width, c10::Half* out) {
  decode_fp8_row(codes, scale, width, out);
}

}  // namespace

void encode_nf4(const float* numbers, int64_t blocks, uint8_t* codes, float* largest) {
  static const Thresholds kThresholds;
  at::parallel_for(0, blocks, kGrainBlocks, [&](int64_t begin, int64_t end) {
    encode_blocks(numbers + begin * kBlock, end - begin, kThresholds.above,
                  codes + begin * kBlockBytes, largest + begin);
  });
}

template <typename T>
void decode_nf4(const uint8_t* codes, const float* scales, int64_t blocks, T* out) {
  at::parallel_for(0, blocks, kGrainBlocks, [&](int64_t begin, int64_t end) {
    decode_range(codes + begin * kBlockBytes, scales + begin, end - begin, out + begin * kBlock);
  });
}

template <typename T>
void decode_fp8(const uint8_t* codes, const float* scales, int64_t rows, int64_t width, T* out) {
  const int64_t grain = std::max<int64_t>(1, kGrainBlocks * kBlock / std::max<int64_t>(1, width));
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      decode_row(codes + row * width, scales[row], width, out + row * width);
    }
  });
}

template void decode_nf4(const uint8_t*, const float*, int64_t, float*);
template void decode_nf4(const uint8_t*, const float*, int64_t, Bf16*);
template void decode_nf4(const uint8_t*, const float*, int64_t, c10::Half*);
template void decode_fp8(const uint8_t*, const float*, int64_t, int64_t, float*);
template void decode_fp8(const uint8_t*, const float*, int64_t, int64_t, Bf16*);
template void decode_fp8(const uint8_t*, const float*, int64_t, int64_t, c10::Half*);

}  // namespace lorry::ops::cpu
