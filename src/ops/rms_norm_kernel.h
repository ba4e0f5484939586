// What the kernels with an RMSNorm share: a row's numbers in registers, forward and backward.
#pragma once

#include "ops/cuda_kernel.h"

namespace lorry::ops::device {

template <typename T, int n>
__device__ float squares(const Pack<T, n>& a) {
  float sum = 0;
#pragma unroll
  for (int j = 0; j < n; ++j) sum += widen(a.values[j]) * widen(a.values[j]);
  return sum;
}

/// What a normalised element is multiplied by, and how it is rounded before.
struct Factor {
  float offset;
  bool rounds_quotient;

  template <typename Arguments>
  __device__ explicit Factor(const Arguments& args)
      : offset(args.offset), rounds_quotient(args.rounds_quotient != 0) {}

  template <typename T>
  __device__ float of(T weight) const {
    return offset + widen(weight);
  }
  template <typename T>
  __device__ float quotient(T x, float scale) const {
    return rounds_quotient ? widen(narrow<T>(widen(x) * scale)) : widen(x) * scale;
  }
};

template <typename T, int n>
__device__ Pack<T, n> normalize(const Pack<T, n>& x, const Pack<T, n>& weight, float scale,
                                Factor factor) {
  Pack<T, n> out;
#pragma unroll
  for (int j = 0; j < n; ++j) {
    out.values[j] = narrow<T>(factor.quotient(x.values[j], scale) * factor.of(weight.values[j]));
  }
  return out;
}

/// What a row adds to d_x = scale * (g - sum * pull) + d_sum with g = d_normed * factor and
/// pull = scale^2 * mean(g * sum).
template <typename T, int n>
__device__ float2 row_sums(const Pack<T, n>& x, const Pack<T, n>& grad, const Pack<T, n>& weight,
                           Factor factor) {
  float2 sums{0.0f, 0.0f};
#pragma unroll
  for (int j = 0; j < n; ++j) {
    const float value = widen(x.values[j]);
    sums.x += value * value;
    sums.y += widen(grad.values[j]) * factor.of(weight.values[j]) * value;
  }
  return sums;
}

template <typename T, int n>
__device__ Pack<T, n> gradient(const Pack<T, n>& x, const Pack<T, n>& grad,
                               const Pack<T, n>& weight, const Pack<T, n>& d_sum, float scale,
                               float pull, Factor factor) {
  Pack<T, n> out;
#pragma unroll
  for (int j = 0; j < n; ++j) {
    const float g = widen(grad.values[j]) * factor.of(weight.values[j]);
    out.values[j] = narrow<T>(scale * (g - widen(x.values[j]) * pull) + widen(d_sum.values[j]));
  }
  return out;
}

}  // namespace lorry::ops::device
