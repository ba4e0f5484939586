#include "ops/row_int_kernels.h"

#include "ops/row_fetch.h"

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
/// From so many tokens on a block of an int4 matrix is widened once for all of them.
constexpr int64_t kMany = 12;
/// Rows of such a block at most, and its numbers: 256 KB, of the level-2 cache.
constexpr int64_t kBlockRows = 32, kBlockNumbers = 128 << 10;
/// Tokens whose numbers stay in the level-1 cache while a block goes by.
constexpr int64_t kBlockTokens = 6;

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
  static constexpr int kTile = 2;
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
  static constexpr int kTile = 2;
  template <int V>
  static LORRY_INLINE __m256i numbers(const uint8_t* group) {
    const __m256i words = load(group + V / 4 * 32);
    if constexpr (V % 4 == 3) return _mm256_srli_epi16(words, 12);
    const __m256i mask = _mm256_set1_epi16(15);
    if constexpr (V % 4 == 0) return _mm256_and_si256(words, mask);
    return _mm256_and_si256(_mm256_srli_epi16(words, V % 4 * 4), mask);
  }
};

/// The same as 16-bit integers, in the order in which they are widened.
struct WidenedInt4Codes : Int4Codes {
  static constexpr int64_t kGroupBytes = kIntGroup * sizeof(int16_t);
  static constexpr int kTile = 3;
  template <int V>
  static LORRY_INLINE __m256i numbers(const uint8_t* group) {
    return load(group + V * sizeof(__m256i));
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
      // Compilers would add the products of several vectors first, for which they lack registers.
      acc[t][o] = in_register(_mm256_add_epi32(acc[t][o], _mm256_madd_epi16(numbers, part[t])));
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

/// From number 8 - n on, a mask of the first n lanes.
constexpr int32_t kFirst[16] = {-1, -1, -1, -1, -1, -1, -1, -1};

/// Adds what the number of code 0 makes: over groups, (zero - 8 scale) times the activations' sums.
template <int T, int O>
LORRY_INLINE void add_zero_terms(const IntProduct& p, int64_t row, int64_t token,
                                 __m256 (&total)[T][O]) {
  const int64_t groups = p.x.groups;
  for (int64_t g = 0; g < groups; g += 8) {
    const __m256i mask = load(kFirst + 8 - (groups - g < 8 ? groups - g : 8));
    for (int o = 0; o < O; ++o) {
      const int64_t at = (row + o) * groups + g;
      const __m256 scale = _mm256_maskload_ps(p.scales + at, mask);
      const __m256 zero =
          _mm256_fnmadd_ps(_mm256_set1_ps(8), scale, _mm256_maskload_ps(p.zeros + at, mask));
      for (int t = 0; t < T; ++t) {
        const float* sums = p.x.sums + (token + t) * groups + g;
        total[t][o] = _mm256_fmadd_ps(zero, _mm256_maskload_ps(sums, mask), total[t][o]);
      }
    }
  }
}

/// A part of the matrix: rows from `row` on, `stride` bytes apart.
struct Rows {
  const uint8_t* data;
  int64_t stride, row;
  LORRY_INLINE Rows from(int64_t i) const { return {data + i * stride, stride, row + i}; }
};

/// The sums of T tokens from `token` on with the first O of `rows`, written to y.
template <class Codes, int T, int O, Fetch kFetch>
LORRY_INLINE void tile(const IntProduct& p, Rows rows, int64_t token) {
  const int64_t x_stride = p.x.groups * kIntGroup, row = rows.row;
  const uint8_t* w = rows.data;
  const int16_t* x = p.x.codes + token * x_stride;
  const uint8_t* next = w + O * rows.stride;
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
    if (Codes::kHasGroups || left >= kIntGroup) {
      if constexpr (kFetch != Fetch::kNothing) {
        for (int o = 0; o < O; ++o) {
          const uint8_t* line = kFetch == Fetch::kInOrder ? next + (g * O + o) * Codes::kGroupBytes
                                                          : w + (o + O) * rows.stride;
          _mm_prefetch(reinterpret_cast<const char*>(line), _MM_HINT_T0);
          if (Codes::kGroupBytes > 64) {
            _mm_prefetch(reinterpret_cast<const char*>(line + 64), _MM_HINT_T0);
          }
        }
      }
      add_group<Codes, T, O>(w, rows.stride, x, x_stride, acc);
    } else {  // of kInt8 alone
      uint8_t padded[O][kIntGroup] = {};
      for (int o = 0; o < O; ++o) {
        for (int64_t i = 0; i < left; ++i) padded[o][i] = w[o * rows.stride + i];
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
  if constexpr (Codes::kHasGroups) add_zero_terms(p, row, token, total);
  for (int t = 0; t < T; ++t) {
    for (int o = 0; o < O; ++o) {
      float y = sum(total[t][o]);
      if constexpr (!Codes::kHasGroups) y *= p.scales[row + o];
      p.y[(token + t) * p.y_stride + row + o] = p.bias ? y + p.bias[row + o] : y;
    }
  }
}

/// Out of line: each tile has all registers to itself.
template <class Codes, int T, int O>
__attribute__((noinline)) void run_tile(const IntProduct& p, Rows rows, int64_t token,
                                        Fetch fetch) {
  if (fetch == Fetch::kInOrder) return tile<Codes, T, O, Fetch::kInOrder>(p, rows, token);
  if (fetch == Fetch::kSideBySide) return tile<Codes, T, O, Fetch::kSideBySide>(p, rows, token);
  tile<Codes, T, O, Fetch::kNothing>(p, rows, token);
}

template <class Codes, int O>
void multiply_few(const IntProduct& p, Rows rows, int64_t begin, int64_t end, bool fetches) {
  for (int64_t t = begin; t < end;) {
    const int64_t left = end - t;
    const Fetch fetch = fetches && t == begin ? fetch_of_rows(rows.stride) : Fetch::kNothing;
    if (left == 1) {
      run_tile<Codes, 1, O>(p, rows, t, fetch);
      t += 1;
    } else if (left == 2 || left == 4 || Codes::kTile == 2) {
      run_tile<Codes, 2, O>(p, rows, t, fetch);
      t += 2;
    } else {
      run_tile<Codes, Codes::kTile, O>(p, rows, t, fetch);
      t += Codes::kTile;
    }
  }
}

/// `count` rows with tokens [begin, end).
template <class Codes>
void multiply_part(const IntProduct& p, Rows rows, int64_t count, int64_t begin, int64_t end,
                   bool fetches) {
  int64_t i = 0;
  for (; i + kRows <= count; i += kRows) {
    multiply_few<Codes, kRows>(p, rows.from(i), begin, end, fetches);
  }
  for (; i < count; ++i) multiply_few<Codes, 1>(p, rows.from(i), begin, end, fetches);
}

template <class Codes>
LORRY_INLINE Rows rows_of(const IntProduct& p, int64_t row) {
  const int64_t stride = Codes::kHasGroups ? p.in / 2 : p.in;
  return Rows{static_cast<const uint8_t*>(p.weight), stride, 0}.from(row);
}

template <class Codes>
void multiply_few_tokens(const IntProduct& p, int64_t begin, int64_t end) {
  for (int64_t t = 0; t < p.x.tokens; t += kTokens) {
    const int64_t t_end = p.x.tokens - t < kTokens ? p.x.tokens : t + kTokens;
    multiply_part<Codes>(p, rows_of<Codes>(p, begin), end - begin, t, t_end, true);
  }
}

template <int V>
LORRY_INLINE void widen_vector(const uint8_t* group, int16_t* to) {
  _mm256_store_si256(reinterpret_cast<__m256i*>(to + V * kLanes), Int4Codes::numbers<V>(group));
}

LORRY_INLINE void widen_row(const uint8_t* from, int64_t groups, int16_t* to) {
  for (int64_t g = 0; g < groups; ++g, from += Int4Codes::kGroupBytes, to += kIntGroup) {
    widen_vector<0>(from, to);
    widen_vector<1>(from, to);
    widen_vector<2>(from, to);
    widen_vector<3>(from, to);
    widen_vector<4>(from, to);
    widen_vector<5>(from, to);
    widen_vector<6>(from, to);
    widen_vector<7>(from, to);
  }
}

/// Arithmetic is the limit: a block of the matrix is widened once for all tokens and stays in the
/// level-2 cache while they go by. The sums are those of `multiply_few_tokens`, in the same order.
void multiply_many_tokens(const IntProduct& p, int64_t block_rows, int64_t begin, int64_t end) {
  alignas(32) int16_t block[kBlockNumbers];
  // A vector more than the row: rows a power of two apart compete for the same lines of a cache.
  const int64_t stride = p.in + kLanes;
  for (int64_t first = begin; first < end; first += block_rows) {
    const int64_t count = end - first < block_rows ? end - first : block_rows;
    const Rows codes = rows_of<Int4Codes>(p, first);
    for (int64_t i = 0; i < count; ++i) {
      widen_row(codes.from(i).data, p.x.groups, block + i * stride);
    }
    const Rows rows{reinterpret_cast<const uint8_t*>(block), stride * int64_t{sizeof(int16_t)},
                    first};
    for (int64_t t = 0; t < p.x.tokens; t += kBlockTokens) {
      const int64_t t_end = p.x.tokens - t < kBlockTokens ? p.x.tokens : t + kBlockTokens;
      multiply_part<WidenedInt4Codes>(p, rows, count, t, t_end, false);
    }
  }
}

/// Widening takes three instructions for 16 numbers in kInt4, one in kInt8, which is not worth a
/// block.
void multiply_int4(const IntProduct& p, int64_t begin, int64_t end) {
  int64_t block_rows = kBlockNumbers / (p.in + kLanes) / kRows * kRows;
  if (block_rows > kBlockRows) block_rows = kBlockRows;
  if (p.x.tokens < kMany || block_rows == 0) return multiply_few_tokens<Int4Codes>(p, begin, end);
  multiply_many_tokens(p, block_rows, begin, end);
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
  if (product.code == IntCode::kInt4) return multiply_int4(product, begin, end);
  multiply_few_tokens<Int8Codes>(product, begin, end);
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
