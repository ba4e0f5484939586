#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <cmath>
#include <type_traits>

#include "ops/cpu_kernels.h"
#include "ops/cpu_loops.h"

namespace lorry::ops::cpu {
namespace {

template <typename T>
LORRY_INLINE float largest(const T* z, int64_t n) {
  float lanes[kLanes];
  for (float& lane : lanes) lane = -INFINITY;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      const float x = widen(z[i + j]);
      lanes[j] = x > lanes[j] ? x : lanes[j];
    }
  }
  float top = -INFINITY;
  for (; i < n; ++i) top = widen(z[i]) > top ? widen(z[i]) : top;
  for (const float lane : lanes) top = lane > top ? lane : top;
  return top;
}

/// One row; returns its loss. A NaN among the logits reaches the sum, and so the loss and the row.
template <typename T>
LORRY_INLINE double loss_row(T* z, int64_t n, int64_t target, float scale) {
  const float top = largest(z, n), at_target = widen(z[target]);
  // Sums of 1024 in float32, of those in float64: a vocabulary has hundreds of thousands.
  constexpr int64_t kPart = 1024;
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kPart) {
    T* const part = z + begin;
    sum += lane_sum(std::min(kPart, n - begin), [&](int64_t i) {
      const float x = widen(part[i]);
      const float power = x == x ? exponential(x - top) : x;
      if constexpr (std::is_same_v<T, float>) part[i] = power;
      return power;
    });
  }
  const float factor = static_cast<float>(scale / sum);
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<T, float>) {
      z[i] *= factor;
    } else {
      z[i] = narrow<T>(exponential(widen(z[i]) - top) * factor);
    }
  }
  const double chance = std::exp(static_cast<double>(at_target) - top) / sum;
  z[target] = narrow<T>(static_cast<float>(scale * (chance - 1)));
  return std::log(sum) + top - at_target;
}

LORRY_CPU_CLONES double run(float* z, int64_t n, int64_t target, float scale) {
  return loss_row(z, n, target, scale);
}
LORRY_CPU_CLONES double run(Bf16* z, int64_t n, int64_t target, float scale) {
  return loss_row(z, n, target, scale);
}

}  // namespace

at::Tensor cross_entropy_(at::Tensor& logits, const at::Tensor& targets, double scale) {
  RECORD_FUNCTION("lorry::cross_entropy", {});
  const int64_t n = logits.size(1), stride = logits.stride(0);
  const at::Tensor index = targets.contiguous();
  at::Tensor losses = at::empty({logits.size(0)}, at::kDouble);
  double* const out = losses.data_ptr<double>();
  dispatch(logits, [&](auto type) {
    using T = decltype(type);
    T* const rows = mutable_data<T>(logits);
    for_rows(logits.size(0), n, [&](int64_t row) {
      out[row] = run(rows + row * stride, n, index.const_data_ptr<int64_t>()[row],
                     static_cast<float>(scale));
    });
  });
  return losses.sum();
}

}  // namespace lorry::ops::cpu
