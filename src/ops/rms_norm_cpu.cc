#include <ATen/ATen.h>

#include <cmath>

#include "ops/cpu_kernels.h"
#include "ops/cpu_loops.h"

namespace lorry::ops::cpu {
namespace {

template <typename T>
LORRY_INLINE float inverse_rms(const T* x, int64_t n, float eps) {
  const float squares = lane_sum(n, [&](int64_t i) { return widen(x[i]) * widen(x[i]); });
  return 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
}

template <typename T>
LORRY_INLINE void rms_norm_row(const T* x, const T* weight, T* out, int64_t n, float eps,
                               RmsNormKind kind) {
  const float scale = inverse_rms(x, n, eps);
  if (kind == RmsNormKind::kPlain) {
    for (int64_t i = 0; i < n; ++i) {
      out[i] = narrow<T>(widen(weight[i]) * rounded<T>(widen(x[i]) * scale));
    }
    return;
  }
  const float offset = kind == RmsNormKind::kOnePlusWeight ? 1.0f : 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    out[i] = narrow<T>((offset + widen(weight[i])) * (widen(x[i]) * scale));
  }
}

/// dx = scale * (g w - y mean(g w y)) with y = x scale; `offset` is added to w.
template <typename T>
LORRY_INLINE void rms_norm_backward_row(const T* grad, const T* x, const T* weight, T* out,
                                        int64_t n, float eps, float offset) {
  const float scale = inverse_rms(x, n, eps);
  const float along = lane_sum(
      n, [&](int64_t i) { return widen(grad[i]) * (offset + widen(weight[i])) * widen(x[i]); });
  const float pull = along * scale * scale / static_cast<float>(n);
  for (int64_t i = 0; i < n; ++i) {
    out[i] = narrow<T>(scale * (widen(grad[i]) * (offset + widen(weight[i])) - widen(x[i]) * pull));
  }
}

// One function a type, since instruction sets are chosen by function; overloads, so that the
// callers below are written once.
LORRY_CPU_CLONES void run(const float* x, const float* w, float* out, int64_t n, float eps,
                          RmsNormKind kind) {
  rms_norm_row(x, w, out, n, eps, kind);
}
LORRY_CPU_CLONES void run(const Bf16* x, const Bf16* w, Bf16* out, int64_t n, float eps,
                          RmsNormKind kind) {
  rms_norm_row(x, w, out, n, eps, kind);
}
LORRY_CPU_CLONES void run_backward(const float* g, const float* x, const float* w, float* out,
                                   int64_t n, float eps, float offset) {
  rms_norm_backward_row(g, x, w, out, n, eps, offset);
}
LORRY_CPU_CLONES void run_backward(const Bf16* g, const Bf16* x, const Bf16* w, Bf16* out,
                                   int64_t n, float eps, float offset) {
  rms_norm_backward_row(g, x, w, out, n, eps, offset);
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, RmsNormKind kind) {
  const at::Tensor in = x.contiguous(), w = weight.contiguous();
  at::Tensor out = at::empty_like(in);
  const int64_t n = in.size(-1);
  dispatch(in, [&](auto type) {
    using T = decltype(type);
    for_rows(in.numel() / n, n, [&](int64_t row) {
      run(data<T>(in) + row * n, data<T>(w), mutable_data<T>(out) + row * n, n,
          static_cast<float>(eps), kind);
    });
  });
  return out;
}

at::Tensor rms_norm_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                             double eps, RmsNormKind kind) {
  const at::Tensor g = grad.contiguous(), in = x.contiguous(), w = weight.contiguous();
  at::Tensor out = at::empty_like(in);
  const int64_t n = in.size(-1);
  const float offset = kind == RmsNormKind::kOnePlusWeight ? 1.0f : 0.0f;
  dispatch(in, [&](auto type) {
    using T = decltype(type);
    for_rows(in.numel() / n, n, [&](int64_t row) {
      run_backward(data<T>(g) + row * n, data<T>(in) + row * n, data<T>(w),
                   mutable_data<T>(out) + row * n, n, static_cast<float>(eps), offset);
    });
  });
  return out;
}

}  // namespace lorry::ops::cpu
