// Residual addition and RMSNorm in one pass, the step between the halves of a transformer block.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/rms_norm.h"  // RmsNormKind

namespace lorry::ops {

struct ResidualRmsNorm {
  at::Tensor sum;     ///< x + residual, rounded to x's dtype: the new residual stream
  at::Tensor normed;  ///< RMSNorm of `sum`
};

/// sum = x + residual; normed = sum / sqrt(mean(sum^2) + eps) * factor, over the last dimension.
///
/// x, residual: (..., width), the same shape; weight: (width); all of one dtype (float32, bfloat16,
/// float16) on one device. Returns contiguous tensors like x. Differentiable in all three; x and
/// residual have the same gradient.
///
/// The norm reads `sum` as rounded and takes mean square and quotient in float32; `kind` says what
/// the factor is and where is rounded, as for rms_norm. d_weight is summed over rows in float32.
///
/// One pass on a CPU (float32, bfloat16) and one kernel on CUDA (cuda_module.h), else libtorch's
/// ops. Deterministic on one device. Throws c10::Error for shapes, dtypes or devices that do not
/// fit together. Any thread. Source: Zhang and Sennrich 2019, arXiv:1910.07467, equation 4;
/// rounding as `transformers` does it in a decoder layer (LlamaDecoderLayer, Gemma3DecoderLayer).
ResidualRmsNorm residual_rms_norm(const at::Tensor& x, const at::Tensor& residual,
                                  const at::Tensor& weight, double eps,
                                  RmsNormKind kind = RmsNormKind::kPlain);

// ---- what an implementation provides
// -------------------------------------------------------------

struct RmsNormGradients {
  at::Tensor x;       ///< like `sum`; also the gradient of the residual
  at::Tensor weight;  ///< (width), or undefined where not wanted
};

/// Both passes on contiguous tensors of one dtype and device, without autograd.
struct RmsNormImplementation {
  /// Without a residual (undefined) this is rms_norm, and `sum` is undefined too.
  ResidualRmsNorm (*forward)(const at::Tensor& x, const at::Tensor& residual,
                             const at::Tensor& weight, double eps, RmsNormKind kind);
  /// From the gradients of `sum` (undefined: zero) and `normed`.
  RmsNormGradients (*backward)(const at::Tensor& sum, const at::Tensor& weight,
                               const at::Tensor& d_sum, const at::Tensor& d_normed, double eps,
                               RmsNormKind kind, bool wants_weight);
};

/// In libtorch's ops, for any device and all dtypes: what the others are measured against.
extern const RmsNormImplementation kPlainRmsNorm;
/// One pass on a CPU; float32 and bfloat16.
extern const RmsNormImplementation kCpuRmsNorm;
/// Which of them, or of the CUDA module's, serves a tensor like x.
const RmsNormImplementation& rms_norm_implementation(const at::Tensor& x);

}  // namespace lorry::ops
