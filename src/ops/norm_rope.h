// RMSNorm of each head of queries and keys and their rotation in one pass (Qwen 3, Gemma 3).
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/rms_norm.h"

namespace lorry::ops {

/// H query heads, K key/value heads, D head size.
struct HeadNorms {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  at::Tensor q_weight, k_weight;  ///< (D) each
  double eps = 1e-6;
  RmsNormKind kind = RmsNormKind::kPlain;
};

/// Of joined: (T, (H + 2 K) D), queries, keys and values side by side, the heads of queries and
/// keys normalised (rms_norm.h), then rotated (rope.h, with its cos and sin); values as they are.
/// Returns a new tensor of this shape. Rounds where the two operations do. Differentiable in
/// joined, of which the node keeps the memory; the weights are frozen.
///
/// One kernel on CUDA, forward and backward. A null tensor where there is none for it (on a CPU,
/// for weights that require gradients, for sizes that are no multiple of 16 bytes): then rms_norm
/// and rotate serve.
at::Tensor norm_rope(const at::Tensor& joined, const HeadNorms& norms, const at::Tensor& cos,
                     const at::Tensor& sin);

/// Without autograd, for CUDA devices. Rows of joined and grad contiguous.
struct NormRopeImplementation {
  /// Whether there is a kernel for them.
  bool (*takes)(const at::Tensor& joined, const HeadNorms& norms, const at::Tensor& cos);
  at::Tensor (*forward)(const at::Tensor& joined, const HeadNorms& norms, const at::Tensor& cos,
                        const at::Tensor& sin);
  at::Tensor (*backward)(const at::Tensor& grad, const at::Tensor& joined, const HeadNorms& norms,
                         const at::Tensor& cos, const at::Tensor& sin);
};

/// norm_rope by an implementation that takes these arguments.
at::Tensor norm_rope_by(const NormRopeImplementation& implementation, const at::Tensor& joined,
                        const HeadNorms& norms, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace lorry::ops
