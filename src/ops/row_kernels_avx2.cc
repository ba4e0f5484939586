#include "ops/row_kernels.h"

#include "ops/row_fetch.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <immintrin.h>

#define LORRY_INLINE inline __attribute__((always_inline))

namespace lorry::ops::cpu {
namespace {

// A tile is the sums of T tokens with O rows of the matrix, in registers; a step of it 16 numbers
// of each, in two halves of 8.

constexpr int64_t kStep = kRowStep;
/// Numbers of a row that are summed before the sum goes to memory: with four rows of the matrix and
/// three of x, what the level-1 cache holds.
constexpr int64_t kChunk = 1024;
/// Tokens whose numbers stay in the level-1 cache while a block of the matrix goes by.
constexpr int64_t kTokens = 6;
/// Rows of the matrix that are such a block.
constexpr int64_t kBlock = 32;
/// From so many tokens on arithmetic is the limit and not memory.
constexpr int64_t kMany = 24;
constexpr int kRows = 4;

/// A vector that stays in its register: compilers would read it from memory for each use.
LORRY_INLINE __m256 in_register(__m256 x) {
  asm("" : "+x"(x));
  return x;
}

alignas(32) constexpr uint32_t kHighHalves[8] = {0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000,
                                                 0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000};

LORRY_INLINE __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

/// Two numbers a word: the even ones are the first half, the odd ones the second.
struct Bf16Codes {
  using Code = uint16_t;
  static constexpr bool kIsScaled = false, kIsPaired = true;
  static LORRY_INLINE __m256 first(const Code* from) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(load(from), 16));
  }
  static LORRY_INLINE __m256 second(const Code* from) {
    // Volatile: in a register of its own the mask would push out a sum.
    const __m256i mask = *reinterpret_cast<const volatile __m256i*>(kHighHalves);
    return _mm256_castsi256_ps(_mm256_and_si256(mask, load(from)));
  }
};

struct F16Codes {
  using Code = uint16_t;
  static constexpr bool kIsScaled = false, kIsPaired = false;
  static LORRY_INLINE __m256 first(const Code* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static LORRY_INLINE __m256 second(const Code* from) { return first(from + 8); }
};

/// As float16, whose exponents have a bias of 15 instead of 7, the numbers are 2^8 too small.
struct Fp8Codes {
  using Code = uint8_t;
  static constexpr bool kIsScaled = true, kIsPaired = false;
  static constexpr float kFactor = 256;
  static LORRY_INLINE __m256 first(const Code* from) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    const __m128i high = _mm_unpacklo_epi8(_mm_setzero_si128(), bytes);
    const __m128i half = _mm_and_si128(_mm_srai_epi16(high, 1), _mm_set1_epi16(-0x4001));
    return _mm256_cvtph_ps(half);
  }
  static LORRY_INLINE __m256 second(const Code* from) { return first(from + 8); }
};

/// The sums of four vectors.
LORRY_INLINE __m128 sums(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

template <int T, int O>
struct Sums {
  __m256 of[T][O];
};

template <class Codes, int T, int O>
LORRY_INLINE void add_step(const typename Codes::Code* w, int64_t w_stride, const float* x,
                           int64_t x_stride, Sums<T, O>& acc) {
  __m256 part[T];
  for (int t = 0; t < T; ++t) part[t] = in_register(_mm256_loadu_ps(x + t * x_stride));
  for (int o = 0; o < O; ++o) {
    const __m256 numbers = Codes::first(w + o * w_stride);
    for (int t = 0; t < T; ++t) acc.of[t][o] = _mm256_fmadd_ps(numbers, part[t], acc.of[t][o]);
  }
  for (int t = 0; t < T; ++t) part[t] = in_register(_mm256_loadu_ps(x + t * x_stride + 8));
  for (int o = 0; o < O; ++o) {
    const __m256 numbers = Codes::second(w + o * w_stride);
    for (int t = 0; t < T; ++t) acc.of[t][o] = _mm256_fmadd_ps(numbers, part[t], acc.of[t][o]);
  }
}

/// The last numbers of a row whose length is no multiple of kStep, and zeros.
template <typename Code>
LORRY_INLINE void pad(const Code* from, int64_t count, Code* to) {
  for (int64_t i = 0; i < kStep; ++i) to[i] = i < count ? from[i] : Code{};
}

template <class Codes, int T, int O>
LORRY_INLINE void add_rest(const typename Codes::Code* w, int64_t w_stride, const float* x,
                           int64_t x_stride, int64_t count, Sums<T, O>& acc) {
  typename Codes::Code padded[O][kStep];
  for (int o = 0; o < O; ++o) pad(w + o * w_stride, count, padded[o]);
  add_step<Codes, T, O>(padded[0], kStep, x, x_stride, acc);
}

/// Where the sums of a tile go: to += scales * sums, or from + scales * sums for the first chunk.
struct Target {
  const float* from;
  int64_t from_stride;
  float* to;
  int64_t to_stride;
  const float* scales;
};

template <class Codes, int O>
LORRY_INLINE void store(const __m256 (&acc)[O], const Target& target, int t) {
  const float* from = target.from + t * target.from_stride;
  float* to = target.to + t * target.to_stride;
  if constexpr (O == kRows) {
    __m128 sum = sums(acc[0], acc[1], acc[2], acc[3]);
    if constexpr (Codes::kIsScaled) {
      sum = _mm_mul_ps(sum, _mm_mul_ps(_mm_loadu_ps(target.scales), _mm_set1_ps(Codes::kFactor)));
    }
    _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(from), sum));
  } else {
    float sum = _mm_cvtss_f32(sums(acc[0], acc[0], acc[0], acc[0]));
    if constexpr (Codes::kIsScaled) sum = sum * (*target.scales * Codes::kFactor);
    *to = _mm_cvtss_f32(_mm_add_ss(_mm_set_ss(*from), _mm_set_ss(sum)));
  }
}

/// `next`: the part of the next O rows that is read in order.
template <class Codes, int T, int O, Fetch kFetch>
LORRY_INLINE void tile(const typename Codes::Code* w, int64_t w_stride, const float* x,
                       int64_t x_stride, int64_t count, const typename Codes::Code* next,
                       const Target& target) {
  Sums<T, O> acc;
  for (int t = 0; t < T; ++t) {
    for (int o = 0; o < O; ++o) acc.of[t][o] = _mm256_setzero_ps();
  }
  int64_t i = 0;
  for (; i + 2 * kStep <= count; i += 2 * kStep) {
    if constexpr (kFetch != Fetch::kNothing) {
      for (int o = 0; o < O; ++o) {
        const auto* line =
            kFetch == Fetch::kInOrder ? next + i * O + o * 2 * kStep : w + (o + O) * w_stride + i;
        _mm_prefetch(reinterpret_cast<const char*>(line), _MM_HINT_T0);
      }
    }
    add_step<Codes, T, O>(w + i, w_stride, x + i, x_stride, acc);
    add_step<Codes, T, O>(w + i + kStep, w_stride, x + i + kStep, x_stride, acc);
  }
  for (; i + kStep <= count; i += kStep) {
    add_step<Codes, T, O>(w + i, w_stride, x + i, x_stride, acc);
  }
  if (i < count) add_rest<Codes, T, O>(w + i, w_stride, x + i, x_stride, count - i, acc);
  for (int t = 0; t < T; ++t) store<Codes, O>(acc.of[t], target, t);
}

/// Out of line: each tile has all registers to itself.
template <class Codes, int T, int O>
__attribute__((noinline)) void run_tile(const typename Codes::Code* w, int64_t w_stride,
                                        const float* x, int64_t x_stride, int64_t count,
                                        Fetch fetch, const typename Codes::Code* next,
                                        const Target& target) {
  if (fetch == Fetch::kInOrder) {
    tile<Codes, T, O, Fetch::kInOrder>(w, w_stride, x, x_stride, count, next, target);
  } else if (fetch == Fetch::kSideBySide) {
    tile<Codes, T, O, Fetch::kSideBySide>(w, w_stride, x, x_stride, count, next, target);
  } else {
    tile<Codes, T, O, Fetch::kNothing>(w, w_stride, x, x_stride, count, next, target);
  }
}

constexpr float kNoBias[kRows] = {};

/// Not std::min: see row_kernels.h.
LORRY_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/// Part of a product: numbers [first, first + count) of the rows of both sides.
struct Chunk {
  int64_t first, count;
};

/// fn(chunk) for those of a row, in their order.
template <typename Fn>
LORRY_INLINE void for_chunks(int64_t in, Fn&& fn) {
  for (int64_t first = 0; first < in; first += kChunk) {
    fn(Chunk{first, least(in - first, kChunk)});
  }
}

/// O rows of the matrix from `row` on, whose chunks are at `w`, with tokens [begin, end).
/// `fetches`: the rows after them are read into the cache meanwhile.
template <class Codes, int O>
LORRY_INLINE void multiply_few(const RowProduct& p, Chunk chunk, const typename Codes::Code* w,
                               int64_t w_stride, int64_t row, int64_t begin, int64_t end,
                               bool fetches) {
  const auto* next = w + O * w_stride + chunk.first * (O - 1);
  for (int64_t t = begin; t < end;) {
    Target target{p.y + t * p.y_stride + row, p.y_stride, p.y + t * p.y_stride + row, p.y_stride,
                  p.scales ? p.scales + row : nullptr};
    if (chunk.first == 0) target.from = p.bias ? p.bias + row : kNoBias;
    if (chunk.first == 0) target.from_stride = 0;
    const float* x = p.x + t * p.padded + chunk.first;
    const int64_t left = end - t;
    const Fetch fetch = fetches && t == begin
                            ? fetch_of_rows(w_stride * int64_t{sizeof(typename Codes::Code)})
                            : Fetch::kNothing;
    if (left == 1) {
      run_tile<Codes, 1, O>(w, w_stride, x, p.padded, chunk.count, fetch, next, target);
      t += 1;
    } else if (left == 2 || left == 4) {
      run_tile<Codes, 2, O>(w, w_stride, x, p.padded, chunk.count, fetch, next, target);
      t += 2;
    } else {
      run_tile<Codes, 3, O>(w, w_stride, x, p.padded, chunk.count, fetch, next, target);
      t += 3;
    }
  }
}

/// The same for `rows` rows.
template <class Codes>
LORRY_INLINE void multiply_chunk(const RowProduct& p, Chunk chunk, const typename Codes::Code* w,
                                 int64_t w_stride, int64_t row, int64_t rows, int64_t begin,
                                 int64_t end, bool fetches) {
  int64_t i = 0;
  for (; i + kRows <= rows; i += kRows) {
    multiply_few<Codes, kRows>(p, chunk, w + i * w_stride, w_stride, row + i, begin, end, fetches);
  }
  for (; i < rows; ++i) {
    multiply_few<Codes, 1>(p, chunk, w + i * w_stride, w_stride, row + i, begin, end, fetches);
  }
}

/// Each row of the matrix is read once while the next ones are fetched: the speed of memory is the
/// limit.
template <class Codes>
void multiply_few_tokens(const RowProduct& p, int64_t begin, int64_t end) {
  const auto* weight = static_cast<const typename Codes::Code*>(p.weight);
  for (int64_t row = begin; row < end; row += kRows) {
    for_chunks(p.in, [&](Chunk chunk) {
      multiply_chunk<Codes>(p, chunk, weight + row * p.in + chunk.first, p.in, row,
                            least(end - row, kRows), 0, p.tokens, true);
    });
  }
}

/// Numbers of a matrix that are float32 already, in the order in which `Codes` are widened.
template <class Codes>
struct Widened : Codes {
  using Code = float;
  static LORRY_INLINE __m256 first(const float* from) { return _mm256_load_ps(from); }
  static LORRY_INLINE __m256 second(const float* from) { return _mm256_load_ps(from + 8); }
};

template <class Codes>
LORRY_INLINE void widen_step(const typename Codes::Code* from, float* to) {
  _mm256_store_ps(to, Codes::first(from));
  _mm256_store_ps(to + kStep / 2, Codes::second(from));
}

/// `count` numbers, and zeros up to a multiple of kStep.
template <class Codes>
void widen(const typename Codes::Code* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) widen_step<Codes>(from + i, to + i);
  if (i == count) return;
  typename Codes::Code rest[kStep];
  pad(from + i, count - i, rest);
  widen_step<Codes>(rest, to + i);
}

/// The rows of a block are a little more than a chunk apart: at 4096 bytes they would all compete
/// for the same lines of the level-1 cache.
constexpr int64_t kStride = kChunk + kStep;

/// Arithmetic is the limit: a block of the matrix is widened once for all tokens and stays in the
/// level-2 cache while they go by, and those of a few tokens in the level-1 cache while the block
/// does. The sums are those of `multiply_few_tokens`, in the same order.
template <class Codes>
void multiply_many_tokens(const RowProduct& p, int64_t begin, int64_t end) {
  alignas(32) float block[kBlock * kStride];
  const auto* weight = static_cast<const typename Codes::Code*>(p.weight);
  for_chunks(p.in, [&](Chunk chunk) {
    const Chunk padded{chunk.first, (chunk.count + kStep - 1) / kStep * kStep};
    for (int64_t first = begin; first < end; first += kBlock) {
      const int64_t rows = least(end - first, kBlock);
      for (int64_t row = 0; row < rows; ++row) {
        widen<Codes>(weight + (first + row) * p.in + chunk.first, chunk.count,
                     block + row * kStride);
      }
      for (int64_t t = 0; t < p.tokens; t += kTokens) {
        multiply_chunk<Widened<Codes>>(p, padded, block, kStride, first, rows, t,
                                       least(t + kTokens, p.tokens), false);
      }
    }
  });
}

template <class Codes>
void multiply(const RowProduct& p, int64_t begin, int64_t end) {
  if (p.tokens < kMany) return multiply_few_tokens<Codes>(p, begin, end);
  multiply_many_tokens<Codes>(p, begin, end);
}

}  // namespace

void multiply_rows(const RowProduct& product, int64_t begin, int64_t end) {
  switch (product.code) {
    case RowCode::kBf16:
      return multiply<Bf16Codes>(product, begin, end);
    case RowCode::kF16:
      return multiply<F16Codes>(product, begin, end);
    case RowCode::kFp8:
      return multiply<Fp8Codes>(product, begin, end);
  }
}

void arrange_row(RowCode code, const float* x, int64_t in, float* out) {
  const bool is_paired = code == RowCode::kBf16;
  for (int64_t i = 0; i < in; i += kStep) {
    float block[kStep] = {};
    const int64_t count = in - i < kStep ? in - i : kStep;
    for (int64_t j = 0; j < count; ++j) block[j] = x[i + j];
    for (int64_t j = 0; j < kStep; ++j) {
      const int64_t from = j < kStep / 2 ? 2 * j : 2 * (j - kStep / 2) + 1;
      out[i + j] = is_paired ? block[from] : block[j];
    }
  }
}

}  // namespace lorry::ops::cpu

#else

namespace lorry::ops::cpu {

// Never called: row_products.cc finds the instructions first.
void multiply_rows(const RowProduct&, int64_t, int64_t) {}
void arrange_row(RowCode, const float*, int64_t, float*) {}

}  // namespace lorry::ops::cpu

#endif
