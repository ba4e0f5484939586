// Numbers for the CPU kernels: bfloat16 as bits, an exponential that compilers vectorise, and the
// attribute that builds a function for several instruction sets.
#pragma once

#include <bit>
#include <cstdint>

// One copy for AVX-512, one for AVX2, one for any machine; the loader picks. Sanitizers cannot run
// the choice, which happens before they start. By feature: "arch=..." asks for one model of CPU.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define LORRY_CPU_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define LORRY_CPU_CLONES
#endif
#define LORRY_INLINE inline __attribute__((always_inline))

namespace lorry::ops::cpu {

struct Bf16 {
  uint16_t bits;
};

LORRY_INLINE float widen(float x) { return x; }
LORRY_INLINE float widen(Bf16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

template <typename T>
LORRY_INLINE T narrow(float x);
template <>
LORRY_INLINE float narrow<float>(float x) {
  return x;
}
/// To nearest, ties to even; a NaN stays one.
template <>
LORRY_INLINE Bf16 narrow<Bf16>(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return {static_cast<uint16_t>(x != x ? 0x7fc0 : rounded)};
}
/// x as it would read back from memory of type T.
template <typename T>
LORRY_INLINE float rounded(float x) {
  return widen(narrow<T>(x));
}

/// e^x within 2 units in the last place; 0 below -87, capped above 88.
LORRY_INLINE float exponential(float x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves a whole number
  const bool tiny = x < -87.0f;
  x = x > 88.0f ? 88.0f : x;
  x = tiny ? -87.0f : x;
  const float n = (x * kLog2E + kRound) - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  // Taylor to the sixth order on [-ln 2 / 2, ln 2 / 2], coefficients of Cephes' expf.
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const auto power = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
  const float result = p * std::bit_cast<float>(power);
  return tiny ? 0.0f : result;
}

}  // namespace lorry::ops::cpu
