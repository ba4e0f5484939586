#include "model/cpu_kernels.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "model/cpu_math.h"

namespace lorry::model::cpu {
namespace {

constexpr int64_t kLanes = 16;       // partial sums, so that a sum can be vectorised
constexpr int64_t kGrain = 1 << 14;  // numbers that are worth another thread

template <typename T>
const T* data(const at::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}
template <typename T>
T* mutable_data(at::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

/// Calls fn with a value of the element type.
template <typename Fn>
void dispatch(const at::Tensor& x, Fn&& fn) {
  x.scalar_type() == at::kFloat ? fn(float{}) : fn(Bf16{});
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

template <typename T>
LORRY_INLINE void rms_norm_row(const T* x, const T* weight, T* out, int64_t n, float eps) {
  const float squares = lane_sum(n, [&](int64_t i) { return widen(x[i]) * widen(x[i]); });
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) {
    out[i] = narrow<T>(widen(weight[i]) * rounded<T>(widen(x[i]) * scale));
  }
}

/// dx = scale * (g w - y mean(g w y)) with y = x scale.
template <typename T>
LORRY_INLINE void rms_norm_backward_row(const T* grad, const T* x, const T* weight, T* out,
                                        int64_t n, float eps) {
  const float squares = lane_sum(n, [&](int64_t i) { return widen(x[i]) * widen(x[i]); });
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
  const float along =
      lane_sum(n, [&](int64_t i) { return widen(grad[i]) * widen(weight[i]) * widen(x[i]); });
  const float pull = along * scale * scale / static_cast<float>(n);
  for (int64_t i = 0; i < n; ++i) {
    out[i] = narrow<T>(scale * (widen(grad[i]) * widen(weight[i]) - widen(x[i]) * pull));
  }
}

/// One token: `heads` heads of 2 * half numbers.
template <typename T>
LORRY_INLINE void rotate_row(const T* x, const T* cos, const T* sin, T* out, int64_t heads,
                             int64_t half, float sign) {
  for (int64_t h = 0; h < heads; ++h, x += 2 * half, out += 2 * half) {
    for (int64_t i = 0; i < half; ++i) {
      const float c = widen(cos[i]), s = sign * widen(sin[i]);
      const float a = widen(x[i]), b = widen(x[half + i]);
      out[i] = narrow<T>(rounded<T>(a * c) - rounded<T>(b * s));
      out[half + i] = narrow<T>(rounded<T>(b * c) + rounded<T>(a * s));
    }
  }
}

LORRY_CPU_CLONES void rms_norm_row_f32(const float* x, const float* w, float* out, int64_t n,
                                       float eps) {
  rms_norm_row(x, w, out, n, eps);
}
LORRY_CPU_CLONES void rms_norm_row_bf16(const Bf16* x, const Bf16* w, Bf16* out, int64_t n,
                                        float eps) {
  rms_norm_row(x, w, out, n, eps);
}
LORRY_CPU_CLONES void rms_norm_backward_row_f32(const float* g, const float* x, const float* w,
                                                float* out, int64_t n, float eps) {
  rms_norm_backward_row(g, x, w, out, n, eps);
}
LORRY_CPU_CLONES void rms_norm_backward_row_bf16(const Bf16* g, const Bf16* x, const Bf16* w,
                                                 Bf16* out, int64_t n, float eps) {
  rms_norm_backward_row(g, x, w, out, n, eps);
}
LORRY_CPU_CLONES void rotate_row_f32(const float* x, const float* cos, const float* sin, float* out,
                                     int64_t heads, int64_t half, float sign) {
  rotate_row(x, cos, sin, out, heads, half, sign);
}
LORRY_CPU_CLONES void rotate_row_bf16(const Bf16* x, const Bf16* cos, const Bf16* sin, Bf16* out,
                                      int64_t heads, int64_t half, float sign) {
  rotate_row(x, cos, sin, out, heads, half, sign);
}

// Overloads, so that the callers below are written once.
void run(const float* x, const float* w, float* o, int64_t n, float e) {
  rms_norm_row_f32(x, w, o, n, e);
}
void run(const Bf16* x, const Bf16* w, Bf16* o, int64_t n, float e) {
  rms_norm_row_bf16(x, w, o, n, e);
}
void run(const float* g, const float* x, const float* w, float* o, int64_t n, float e) {
  rms_norm_backward_row_f32(g, x, w, o, n, e);
}
void run(const Bf16* g, const Bf16* x, const Bf16* w, Bf16* o, int64_t n, float e) {
  rms_norm_backward_row_bf16(g, x, w, o, n, e);
}
void run(const float* x, const float* c, const float* s, float* o, int64_t heads, int64_t half,
         float sign) {
  rotate_row_f32(x, c, s, o, heads, half, sign);
}
void run(const Bf16* x, const Bf16* c, const Bf16* s, Bf16* o, int64_t heads, int64_t half,
         float sign) {
  rotate_row_bf16(x, c, s, o, heads, half, sign);
}

}  // namespace

bool takes(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor in = x.contiguous(), w = weight.contiguous();
  at::Tensor out = at::empty_like(in);
  const int64_t n = in.size(-1);
  dispatch(in, [&](auto type) {
    using T = decltype(type);
    for_rows(in.numel() / n, n, [&](int64_t row) {
      run(data<T>(in) + row * n, data<T>(w), mutable_data<T>(out) + row * n, n,
          static_cast<float>(eps));
    });
  });
  return out;
}

at::Tensor rms_norm_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                             double eps) {
  const at::Tensor g = grad.contiguous(), in = x.contiguous(), w = weight.contiguous();
  at::Tensor out = at::empty_like(in);
  const int64_t n = in.size(-1);
  dispatch(in, [&](auto type) {
    using T = decltype(type);
    for_rows(in.numel() / n, n, [&](int64_t row) {
      run(data<T>(g) + row * n, data<T>(in) + row * n, data<T>(w), mutable_data<T>(out) + row * n,
          n, static_cast<float>(eps));
    });
  });
  return out;
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, float sign) {
  const at::Tensor in = x.contiguous();
  at::Tensor out = at::empty_like(in);
  const int64_t heads = in.size(1), d = in.size(2), half = d / 2;
  dispatch(in, [&](auto type) {
    using T = decltype(type);
    for_rows(in.size(0), heads * d, [&](int64_t row) {
      run(data<T>(in) + row * heads * d, data<T>(cos) + row * half, data<T>(sin) + row * half,
          mutable_data<T>(out) + row * heads * d, heads, half, sign);
    });
  });
  return out;
}

}  // namespace lorry::model::cpu
