#include "generate/logit_kernels.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace lorry::generate {
namespace {

using ops::cpu::Bf16;
using ops::cpu::widen;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kLanes = 16;  // accumulators, so that a reduction can be vectorised

/// e^x for x <= 0 within 2 units in the last place; 0 below -708 and for NaN.
LORRY_INLINE double exponential(double x) {
  constexpr double kLog2E = 1.4426950408889634, kRound = 6755399441055744.0;  // 1.5 * 2^52
  // ln 2 in two parts (Cody and Waite): products of the first with small whole numbers are exact.
  constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
  const bool counts = x >= -708.0;
  x = counts ? x : -708.0;
  const double shifted = x * kLog2E + kRound;
  const double n = shifted - kRound;
  const double r = (x - n * kLn2High) - n * kLn2Low;  // |r| <= ln 2 / 2
  double p = 1.0 / 6227020800.0;                      // Taylor to the 13th order: 4e-18
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  // The low bits of `shifted` are n; as an exponent they make 2^n.
  const uint64_t power = (std::bit_cast<uint64_t>(shifted) << 52) + (uint64_t{1023} << 52);
  const double result = p * std::bit_cast<double>(power);
  return counts ? result : 0.0;
}

template <typename T>
LORRY_INLINE float max_of(const T* x, int64_t n) {
  float lanes[kLanes];
  for (int64_t j = 0; j < kLanes; ++j) lanes[j] = -kInfinity;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      const float value = widen(x[i + j]);
      lanes[j] = value > lanes[j] ? value : lanes[j];
    }
  }
  for (; i < n; ++i) lanes[0] = widen(x[i]) > lanes[0] ? widen(x[i]) : lanes[0];
  for (int64_t j = 1; j < kLanes; ++j) lanes[0] = lanes[j] > lanes[0] ? lanes[j] : lanes[0];
  return lanes[0];
}

template <typename T>
LORRY_INLINE void maxima_of(const T* x, int64_t n, float* out) {
  for (int64_t begin = 0; begin < n; begin += kMaximaBlock) {
    *out++ = max_of(x + begin, std::min(kMaximaBlock, n - begin));
  }
}
LORRY_CPU_CLONES void maxima_float(const float* x, int64_t n, float* out) { maxima_of(x, n, out); }
LORRY_CPU_CLONES void maxima_bf16(const Bf16* x, int64_t n, float* out) { maxima_of(x, n, out); }

template <typename T>
LORRY_INLINE double exp_sum_of(const T* x, int64_t n, double top, double temperature) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      lanes[j] += exponential((static_cast<double>(widen(x[i + j])) - top) / temperature);
    }
  }
  for (; i < n; ++i) {
    lanes[0] += exponential((static_cast<double>(widen(x[i])) - top) / temperature);
  }
  double sum = 0;
  for (int64_t j = 0; j < kLanes; ++j) sum += lanes[j];
  return sum;
}

template <typename T>
LORRY_INLINE void exp_sums_of(const T* x, int64_t n, double top, double temperature, double* out) {
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    *out++ = exp_sum_of(x + begin, std::min(kSumBlock, n - begin), top, temperature);
  }
}
LORRY_CPU_CLONES void exp_sums_float(const float* x, int64_t n, double top, double temperature,
                                     double* out) {
  exp_sums_of(x, n, top, temperature, out);
}
LORRY_CPU_CLONES void exp_sums_bf16(const Bf16* x, int64_t n, double top, double temperature,
                                    double* out) {
  exp_sums_of(x, n, top, temperature, out);
}

template <typename T>
LORRY_INLINE void copy_clean_of(const T* x, int64_t n, float* out) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  for (int64_t i = 0; i < n; ++i) {
    float value = widen(x[i]);
    value = value > kLargest ? kLargest : value;
    out[i] = value == value ? value : -kInfinity;
  }
}
LORRY_CPU_CLONES void copy_clean_float(const float* x, int64_t n, float* out) {
  copy_clean_of(x, n, out);
}
LORRY_CPU_CLONES void copy_clean_bf16(const Bf16* x, int64_t n, float* out) {
  copy_clean_of(x, n, out);
}

int64_t blocks_of(int64_t size, int64_t block) { return (size + block - 1) / block; }

}  // namespace

float block_maxima(const LogitRow& row, std::vector<float>& maxima) {
  maxima.resize(static_cast<size_t>(blocks_of(row.size, kMaximaBlock)));
  if (row.floats != nullptr) {
    maxima_float(row.floats, row.size, maxima.data());
  } else {
    maxima_bf16(row.bf16, row.size, maxima.data());
  }
  return *std::max_element(maxima.begin(), maxima.end());
}

int32_t first_at(const LogitRow& row, std::span<const float> maxima, float top) {
  const auto block = std::find(maxima.begin(), maxima.end(), top) - maxima.begin();
  int64_t id = block * kMaximaBlock;
  while (id < row.size && row[id] != top) ++id;
  return id < row.size ? static_cast<int32_t>(id) : 0;
}

void gather_above(const LogitRow& row, std::span<const float> maxima, float threshold,
                  std::vector<Candidate>& out) {
  for (size_t block = 0; block < maxima.size(); ++block) {
    if (maxima[block] < threshold) continue;
    const int64_t begin = static_cast<int64_t>(block) * kMaximaBlock;
    const int64_t end = std::min(begin + kMaximaBlock, row.size);
    for (int64_t id = begin; id < end; ++id) {
      const float logit = row[id];
      if (logit >= threshold) out.push_back({logit, static_cast<int32_t>(id)});
    }
  }
}

double exp_sums(const LogitRow& row, float top, double temperature, std::vector<double>& sums) {
  sums.resize(static_cast<size_t>(blocks_of(row.size, kSumBlock)));
  if (row.floats != nullptr) {
    exp_sums_float(row.floats, row.size, top, temperature, sums.data());
  } else {
    exp_sums_bf16(row.bf16, row.size, top, temperature, sums.data());
  }
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

void copy_clean(const LogitRow& row, std::vector<float>& out) {
  out.resize(static_cast<size_t>(row.size));
  if (row.floats != nullptr) {
    copy_clean_float(row.floats, row.size, out.data());
  } else {
    copy_clean_bf16(row.bf16, row.size, out.data());
  }
}

}  // namespace lorry::generate
