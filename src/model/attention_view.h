// What a token may look at. A model step asks an AttentionView: training gives it packed sequences,
// serving a view of the paged KV cache.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "ops/attention.h"

namespace lorry::model {

// T tokens of a packed step, H query heads, K key/value heads, D numbers a query and key head, E
// numbers a value head.

class AttentionView {
 public:
  virtual ~AttentionView() = default;
  /// Causal attention of layer `layer`.
  /// q: (T, H, D); k: (T, K, D); v: (T, K, E), positions already rotated in. Returns (T, H, E) in
  /// q's dtype.
  virtual at::Tensor attend(int64_t layer, const ops::AttentionParams& params, const at::Tensor& q,
                            const at::Tensor& k, const at::Tensor& v) = 0;
  /// The same of queries, keys and values side by side in each row, (T, (H + 2 K) D), where D = E.
  virtual at::Tensor attend_joined(int64_t layer, const ops::AttentionParams& params,
                                   const at::Tensor& qkv, int64_t heads, int64_t kv_heads);
  /// Tokens that each token's sequence holds after this step, (T) int64 on `device`: what decides
  /// between the two sets of frequencies of longrope.
  virtual at::Tensor context_lengths(at::Device device) const = 0;
};

/// Concatenated sequences; attention never crosses a boundary. Differentiable.
class PackedAttention final : public AttentionView {
 public:
  /// cu_seqlens: 0, then the end of each sequence; the last is T.
  /// cu_seqlens_device: the same as int32 on the GPU; undefined: copied when first needed.
  explicit PackedAttention(std::vector<int64_t> cu_seqlens, at::Tensor cu_seqlens_device = {})
      : sequences_(std::move(cu_seqlens), std::move(cu_seqlens_device)) {}
  at::Tensor attend(int64_t layer, const ops::AttentionParams& params, const at::Tensor& q,
                    const at::Tensor& k, const at::Tensor& v) override {
    return sequences_.attend(q, k, v, params);
  }
  at::Tensor attend_joined(int64_t layer, const ops::AttentionParams& params, const at::Tensor& qkv,
                           int64_t heads, int64_t kv_heads) override {
    return sequences_.attend_joined(qkv, heads, kv_heads, params);
  }
  at::Tensor context_lengths(at::Device device) const override;

 private:
  ops::PackedSequences sequences_;
};

}  // namespace lorry::model
