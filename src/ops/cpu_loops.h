// What the CPU kernels share: typed access, rows over the threads, sums that vectorise.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

#include "ops/cpu_math.h"

namespace lorry::ops::cpu {

constexpr int64_t kLanes = 16;           // partial sums, so that a sum can be vectorised
constexpr int64_t kGrain = 1 << 14;      // numbers that are worth another thread
constexpr int64_t kTaskGrain = 1 << 16;  // the same where each takes a product, and tasks are few

template <typename T>
const T* data(const at::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}
template <typename T>
T* mutable_data(at::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

/// Calls fn with a value of the element type: float or Bf16.
template <typename Fn>
void dispatch(const at::Tensor& x, Fn&& fn) {
  x.scalar_type() == at::kFloat ? fn(float{}) : fn(Bf16{});
}

/// Calls fn with the numbers of x, which are written: float, Bf16 or at::Half.
template <typename Fn>
void with_products_dtype(at::Tensor& x, Fn&& fn) {
  if (x.scalar_type() == at::kFloat) return fn(mutable_data<float>(x));
  if (x.scalar_type() == at::kBFloat16) return fn(mutable_data<Bf16>(x));
  fn(mutable_data<at::Half>(x));
}

/// fn(row) for all rows of `width` numbers, over the threads.
template <typename Fn>
void for_rows(int64_t rows, int64_t width, Fn&& fn) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(width, 1));
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) fn(row);
  });
}

LORRY_INLINE float sum_lanes(const float* lanes) {
  float sum = 0;
  for (int64_t j = 0; j < kLanes; ++j) sum += lanes[j];
  return sum;
}

/// sum over i of f(i), in kLanes partial sums.
template <typename F>
LORRY_INLINE float lane_sum(int64_t n, F f) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += f(i + j);
  }
  for (; i < n; ++i) lanes[0] += f(i);
  return sum_lanes(lanes);
}

}  // namespace lorry::ops::cpu
