// Loops over contiguous CPU memory for what libtorch does in many passes: the norm, the rotation,
// and attention of single tokens over the paged cache. No autograd here; see fused_ops.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace lorry::model::cpu {

// T tokens, H query heads, K key/value heads, D head size.

/// Whether the kernels take this tensor's device and dtype (CPU; float32 or bfloat16).
bool takes(const at::Tensor& x);

/// x / rms(x) * weight over the last dimension, rounded to x's dtype before the weight.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
/// Gradient of rms_norm in x.
at::Tensor rms_norm_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                             double eps);

/// x: (T, heads, D); cos, sin: (T, 1, D/2) in x's dtype. `sign` -1 turns back.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, float sign);

/// One new token of a sequence: row `row` of q sees the places [begin, end) of `blocks`.
struct DecodeRow {
  int64_t row = 0;
  const int32_t* blocks = nullptr;
  int64_t begin = 0, end = 0;
};

/// q, out: (T, H, D); keys, values: (blocks, tokens a block, K, D), all of one dtype. Writes the
/// rows of `out` that `rows` names. Scores and sums are float32.
void attend_paged(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                  const std::vector<DecodeRow>& rows, at::Tensor& out);

}  // namespace lorry::model::cpu
