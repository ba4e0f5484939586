// RMS normalisation. Zhang and Sennrich 2019, arXiv:1910.07467.
#pragma once

#include <ATen/core/Tensor.h>

namespace lorry::ops {

/// Where a family rounds and what it multiplies by. In float32 kPlain and kWideWeight are one.
enum class RmsNormKind {
  kPlain,          ///< the quotient is rounded to x's dtype, then multiplied (Llama, Qwen)
  kWideWeight,     ///< multiplied in float32, then rounded once (OLMo 2, GPT-OSS)
  kOnePlusWeight,  ///< the same with 1 + weight (Gemma)
};

/// x / rms(x) * weight over the last dimension; the mean square is taken in float32.
///
/// x: (..., n), float32, bfloat16 or float16; weight: (n) in x's dtype. Returns x's shape and
/// dtype. Differentiable in both. The passes of residual_rms_norm.h, without a residual. Source of
/// the rounding: `transformers`' LlamaRMSNorm, Olmo2RMSNorm, Gemma2RMSNorm.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps,
                    RmsNormKind kind = RmsNormKind::kPlain);

}  // namespace lorry::ops
