#include "ops/row_int_kernels.h"

#if defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>

#define LORRY_INLINE inline __attribute__((always_inline))

namespace lorry::ops::cpu {
namespace {

// A tile is the sums of T tokens with O rows of the matrix; it reads both in vectors of 16 numbers.

constexpr int64_t kLanes = 16;
constexpr int kVectors = kIntGroup / kLanes;
/// Tokens whose numbers stay in the level-2 cache while the matrix goes by.
constexpr int64_t kTokens = 32;
constexpr int kRows = 4;

LORRY_INLINE __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
/// A vector that stays in its register: compilers would read it from memory for each use.
LORRY_INLINE __m256i in_register(__m256i x) {
  asm("" : "+x"(x));
  return x;
}

/// 127 * 32767 twice a step, eight steps: far from overflow.
struct Int8Codes {
  static constexpr bool kHasGroups = false;
  static constexpr int64_t kGroupBytes = kIntGroup;
  template <int V>
  static LORRY_INLINE __m256i numbers(const uint8_t* group) {
    return _mm256_cvtepi8_epi16(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(group + V * kLanes)));
  }
};

/// A word holds four codes. Vector V takes code V % 4 of the words of its half of the group.
struct Int4Codes {
  static constexpr bool kHasGroups = true;
  static constexpr int64_t kGroupBytes = kIntGroup / 2;
  template <int V>
  static LORRY_INLINE __m256i numbers(const uint8_t* group) {
    const __m256i words = load(group + V / 4 * 32);
    if constexpr (V % 4 == 3) return _mm256_srli_epi16(words, 12);
    const __m256i mask = _mm256_set1_epi16(15);
    if constexpr (V % 4 == 0) return _mm256_and_si256(words, mask);
    return _mm256_and_si256(_mm256_srli_epi16(words, V % 4 * 4), mask);
  }
};

/// The place in a group of number i of vector V.
int64_t place(IntCode code, int64_t v, int64_t i) {
  return code == IntCode::kInt8 ? v * kLanes + i : v / 4 * 64 + 4 * i + v % 4;
}

template <class Codes, int T, int O, int V>
LORRY_INLINE void add_vector(const uint8_t* w, int64_t w_stride, const int16_t* x, int64_t x_stride,
                             __m256i (&acc)[T][O]) {
  __m256i part[T];
  for (int t = 0; t < T; ++t) part[t] = in_register(load(x + t * x_stride + V * kLanes));
  for (int o = 0; o < O; ++o) {
    const __m256i numbers = Codes::template numbers<V>(w + o * w_stride);
    for (int t = 0; t < T; ++t) {
      acc[t][o] = _mm256_add_epi32(acc[t][o], _mm256_madd_epi16(numbers, part[t]));
    }
  }
}

template <class Codes, int T, int O>
LORRY_INLINE void add_group(const uint8_t* w, int64_t w_stride, const int16_t* x, int64_t x_stride,
                            __m256i (&acc)[T][O]) {
  static_assert(kVectors == 8);
  add_vector<Codes, T, O, 0>(w, w_stride, x, x_stride, acc);
  add_vector<Codes, T, O, 1>(w, w_stride, x, x_stride, acc);
  add_vector<Codes, T, O, 2>(w, w_stride, x, x_stride, acc);
  add_vector<Codes, T, O, 3>(w, w_stride, x, x_stride, acc);
  add_vector<Codes, T, O, 4>(w, w_stride, x, x_stride, acc);
  add_vector<Codes, T, O, 5>(w, w_stride, x, x_stride, acc);
  add_vector<Codes, T, O, 6>(w, w_stride, x, x_stride, acc);
  add_vector<Codes, T, O, 7>(w, w_stride, x, x_stride, acc);
}

LORRY_INLINE float sum(__m256 x) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/// What the number of code 0 adds: the sum over groups of (zero - 8 scale) times the activations.
LORRY_INLINE float zero_terms(const IntProduct& p, int64_t row, int64_t token) {
  const float* scales = p.scales + row * p.x.groups;
  const float* zeros = p.zeros + row * p.x.groups;
  const float* sums = p.x.sums + token * p.x.groups;
  float out = 0;
  for (int64_t g = 0; g < p.x.groups; ++g) out += (zeros[g] - 8 * scales[g]) * sums[g];
  return out;
}

template <class Codes, int T, int O>
__attribute__((noinline)) void run_tile(const IntProduct& p, int64_t row, int64_t token) {
  const int64_t w_stride = Codes::kHasGroups ? p.in / 2 : p.in;
  const int64_t x_stride = p.x.groups * kIntGroup;
  const uint8_t* w = static_cast<const uint8_t*>(p.weight) + row * w_stride;
  const int16_t* x = p.x.codes + token * x_stride;
  __m256 total[T][O];
  for (int t = 0; t < T; ++t) {
    for (int o = 0; o < O; ++o) total[t][o] = _mm256_setzero_ps();
  }
  for (int64_t g = 0; g < p.x.groups; ++g, w += Codes::kGroupBytes, x += kIntGroup) {
    __m256i acc[T][O];
    for (int t = 0; t < T; ++t) {
      for (int o = 0; o < O; ++o) acc[t][o] = _mm256_setzero_si256();
    }
    const int64_t left = p.in - g * kIntGroup;
    if (left >= kIntGroup) {
      for (int o = 0; o < O; ++o) {  // of the next rows
        _mm_prefetch(reinterpret_cast<const char*>(w + (o + O) * w_stride), _MM_HINT_T0);
        if (Codes::kGroupBytes > 64) {
          _mm_prefetch(reinterpret_cast<const char*>(w + (o + O) * w_stride + 64), _MM_HINT_T0);
        }
      }
      add_group<Codes, T, O>(w, w_stride, x, x_stride, acc);
    } else {  // of kInt8 alone
      uint8_t padded[O][kIntGroup] = {};
      for (int o = 0; o < O; ++o) {
        for (int64_t i = 0; i < left; ++i) padded[o][i] = w[o * w_stride + i];
      }
      add_group<Codes, T, O>(padded[0], kIntGroup, x, x_stride, acc);
    }
    for (int t = 0; t < T; ++t) {
      const float x_scale = p.x.scales[(token + t) * p.x.groups + g];
      for (int o = 0; o < O; ++o) {
        const float scale =
            Codes::kHasGroups ? x_scale * p.scales[(row + o) * p.x.groups + g] : x_scale;
        total[t][o] =
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[t][o]), _mm256_set1_ps(scale), total[t][o]);
      }
    }
  }
  for (int t = 0; t < T; ++t) {
    for (int o = 0; o < O; ++o) {
      float y = sum(total[t][o]);
      y = Codes::kHasGroups ? y + zero_terms(p, row + o, token + t) : y * p.scales[row + o];
      p.y[(token + t) * p.y_stride + row + o] = p.bias ? y + p.bias[row + o] : y;
    }
  }
}

template <class Codes, int O>
void multiply_few(const IntProduct& p, int64_t row, int64_t begin, int64_t end) {
  int64_t t = begin;
  for (; t + 2 <= end; t += 2) run_tile<Codes, 2, O>(p, row, t);
  if (t < end) run_tile<Codes, 1, O>(p, row, t);
}

template <class Codes>
void multiply(const IntProduct& p, int64_t begin, int64_t end) {
  for (int64_t t = 0; t < p.x.tokens; t += kTokens) {
    const int64_t t_end = p.x.tokens - t < kTokens ? p.x.tokens : t + kTokens;
    int64_t row = begin;
    for (; row + kRows <= end; row += kRows) multiply_few<Codes, kRows>(p, row, t, t_end);
    for (; row < end; ++row) multiply_few<Codes, 1>(p, row, t, t_end);
  }
}

/// Of the magnitudes; NaN if a number is none.
LORRY_INLINE float largest_of(const float* x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 largest = _mm256_setzero_ps(), nan = _mm256_setzero_ps();
  for (int64_t i = 0; i < kIntGroup; i += 8) {
    const __m256 numbers = _mm256_loadu_ps(x + i);
    largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, numbers));
    nan = _mm256_or_ps(nan, _mm256_cmp_ps(numbers, numbers, _CMP_UNORD_Q));
  }
  float lanes[8], out = 0;
  _mm256_storeu_ps(lanes, _mm256_or_ps(largest, nan));  // a comparison's ones are a NaN
  for (const float lane : lanes) out = lane > out || lane != lane ? lane : out;
  return out;
}

/// The integers nearest to x * inverse; returns their sum.
LORRY_INLINE int32_t round_group(const float* x, float inverse, int32_t* out) {
  __m256i sum = _mm256_setzero_si256();
  for (int64_t i = 0; i < kIntGroup; i += 8) {
    const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(inverse));
    const __m256i rounded = _mm256_cvtps_epi32(scaled);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), rounded);
    sum = _mm256_add_epi32(sum, rounded);
  }
  int32_t lanes[8], total = 0;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), sum);
  for (const int32_t lane : lanes) total += lane;
  return total;
}

}  // namespace

void multiply_int_rows(const IntProduct& product, int64_t begin, int64_t end) {
  product.code == IntCode::kInt8 ? multiply<Int8Codes>(product, begin, end)
                                 : multiply<Int4Codes>(product, begin, end);
}

void arrange_int_row(IntCode code, const float* x, int64_t in, const IntRows& rows, int64_t token) {
  constexpr float kLargest = 32767, kTiny = 1e-30f;  // less has no inverse, and is nothing
  for (int64_t g = 0; g < rows.groups; ++g) {
    const int64_t first = g * kIntGroup, left = in - first;
    float padded[kIntGroup] = {};
    const float* from = x + first;
    if (left < kIntGroup) {
      for (int64_t i = 0; i < left; ++i) padded[i] = from[i];
      from = padded;
    }
    const float largest = largest_of(from);
    const float scale = largest / kLargest;
    int32_t rounded[kIntGroup];
    const int32_t sum = round_group(from, largest < kTiny ? 0 : kLargest / largest, rounded);
    const int64_t at = token * rows.groups + g;
    rows.scales[at] = scale;
    rows.sums[at] = scale * static_cast<float>(sum);
    int16_t* to = rows.codes + at * kIntGroup;
    for (int64_t v = 0; v < kVectors; ++v) {
      for (int64_t i = 0; i < kLanes; ++i) {
        to[v * kLanes + i] = static_cast<int16_t>(rounded[place(code, v, i)]);
      }
    }
  }
}

}  // namespace lorry::ops::cpu

#else

namespace lorry::ops::cpu {

// Never called: row_products.cc finds the instructions first.
void multiply_int_rows(const IntProduct&, int64_t, int64_t) {}
void arrange_int_row(IntCode, const float*, int64_t, const IntRows&, int64_t) {}

}  // namespace lorry::ops::cpu

#endif
