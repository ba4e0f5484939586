#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include "ops/cpu_kernels.h"
#include "ops/cpu_loops.h"

namespace lorry::ops::cpu {
namespace {

/// One token: `heads` heads of d numbers, the first 2 * half of which turn.
template <typename T>
LORRY_INLINE void rotate_row(const T* x, const T* cos, const T* sin, T* out, int64_t heads,
                             int64_t d, int64_t half, float sign) {
  for (int64_t h = 0; h < heads; ++h, x += d, out += d) {
    for (int64_t i = 0; i < half; ++i) {
      const float c = widen(cos[i]), s = sign * widen(sin[i]);
      const float a = widen(x[i]), b = widen(x[half + i]);
      out[i] = narrow<T>(rounded<T>(a * c) - rounded<T>(b * s));
      out[half + i] = narrow<T>(rounded<T>(b * c) + rounded<T>(a * s));
    }
    for (int64_t i = 2 * half; i < d; ++i) out[i] = x[i];
  }
}

/// The same in place, over the heads of a row.
template <typename T>
LORRY_INLINE void turn_row(T* x, const T* cos, const T* sin, int64_t heads, int64_t d, int64_t half,
                           float sign) {
  for (int64_t h = 0; h < heads; ++h) {
    T* __restrict first = x + h * d;
    T* __restrict second = first + half;
    for (int64_t i = 0; i < half; ++i) {
      const float c = widen(cos[i]), s = sign * widen(sin[i]);
      const float a = widen(first[i]), b = widen(second[i]);
      first[i] = narrow<T>(rounded<T>(a * c) - rounded<T>(b * s));
      second[i] = narrow<T>(rounded<T>(b * c) + rounded<T>(a * s));
    }
  }
}

LORRY_CPU_CLONES void run(float* x, const float* cos, const float* sin, int64_t heads, int64_t d,
                          int64_t half, float sign) {
  turn_row(x, cos, sin, heads, d, half, sign);
}
LORRY_CPU_CLONES void run(Bf16* x, const Bf16* cos, const Bf16* sin, int64_t heads, int64_t d,
                          int64_t half, float sign) {
  turn_row(x, cos, sin, heads, d, half, sign);
}

LORRY_CPU_CLONES void run(const float* x, const float* cos, const float* sin, float* out,
                          int64_t heads, int64_t d, int64_t half, float sign) {
  rotate_row(x, cos, sin, out, heads, d, half, sign);
}
LORRY_CPU_CLONES void run(const Bf16* x, const Bf16* cos, const Bf16* sin, Bf16* out, int64_t heads,
                          int64_t d, int64_t half, float sign) {
  rotate_row(x, cos, sin, out, heads, d, half, sign);
}

}  // namespace

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, float sign) {
  RECORD_FUNCTION("lorry::rotate", {});
  const at::Tensor in = x.contiguous();
  at::Tensor out = at::empty_like(in);
  const int64_t heads = in.size(1), d = in.size(2), half = cos.size(-1);
  dispatch(in, [&](auto type) {
    using T = decltype(type);
    for_rows(in.size(0), heads * d, [&](int64_t row) {
      run(data<T>(in) + row * heads * d, data<T>(cos) + row * half, data<T>(sin) + row * half,
          mutable_data<T>(out) + row * heads * d, heads, d, half, sign);
    });
  });
  return out;
}

void rotate_in_place(at::Tensor x, int64_t heads, int64_t d, const at::Tensor& cos,
                     const at::Tensor& sin, float sign) {
  RECORD_FUNCTION("lorry::rotate_in_place", {});
  const int64_t half = cos.size(-1), stride = x.stride(0);
  dispatch(x, [&](auto type) {
    using T = decltype(type);
    T* const rows = mutable_data<T>(x);
    for_rows(x.size(0), heads * d, [&](int64_t row) {
      run(rows + row * stride, data<T>(cos) + row * half, data<T>(sin) + row * half, heads, d, half,
          sign);
    });
  });
}

}  // namespace lorry::ops::cpu
