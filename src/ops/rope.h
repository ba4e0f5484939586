// Applying rotary position embedding; model/rope.h has the frequencies.
#pragma once

#include <ATen/core/Tensor.h>

namespace lorry::ops {

/// Rotates the pairs (i, i + R/2) of the first R numbers of each head by angles whose cos and sin
/// are given; the other D - R numbers stay as they are.
///
/// x: (T, heads, D); cos, sin: (T, 1, R/2) in x's dtype. Differentiable in x alone.
/// One pass on a CPU (float32, bfloat16) and one kernel on CUDA, else libtorch's ops.
/// Source: Su et al. 2021, arXiv:2104.09864; pairs and rounding as in `transformers`' rotate_half.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

/// The same in place on the first `heads` heads of each row of x: (T, n), n >= heads * D, rows
/// contiguous. Consumes x: nobody else may read it, not even the backward pass of what made it (a
/// linear map's does not). One node of autograd's graph, which keeps nothing of x.
at::Tensor rotate_in_place(at::Tensor x, int64_t heads, int64_t head_dim, const at::Tensor& cos,
                           const at::Tensor& sin);

/// Without autograd, for CUDA devices.
struct RopeImplementation {
  /// x by the angles, or with sign -1 back, to out. Both (T, heads, D) of any strides but the
  /// last, 1; they may be the same memory. cos and sin (T, 1, R/2), contiguous, in x's dtype:
  /// float32, bfloat16 or float16.
  void (*rotate)(const at::Tensor& x, const at::Tensor& out, const at::Tensor& cos,
                 const at::Tensor& sin, float sign);
};

}  // namespace lorry::ops
