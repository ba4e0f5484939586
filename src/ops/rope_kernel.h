// What the kernels that rotate share.
#pragma once

#include "ops/cuda_kernel.h"

namespace lorry::ops::device {

/// Turns numbers of the first half of a head and those of the second that go with them; `sign` -1
/// turns back. The rounding of `transformers`: each product, then their sum.
template <typename T, int n>
__device__ void turn(Pack<T, n>& a, Pack<T, n>& b, const Pack<T, n>& cos, const Pack<T, n>& sin,
                     float sign) {
#pragma unroll
  for (int j = 0; j < n; ++j) {
    const float c = widen(cos.values[j]), s = sign * widen(sin.values[j]);
    const float x = widen(a.values[j]), y = widen(b.values[j]);
    a.values[j] = narrow<T>(rounded<T>(x * c) - rounded<T>(y * s));
    b.values[j] = narrow<T>(rounded<T>(y * c) + rounded<T>(x * s));
  }
}

}  // namespace lorry::ops::device
