// What a token may look at. The model step asks an AttentionView; training gives it a packed
// context, serving a view of the paged KV cache.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

namespace lorry::model {

// T tokens of a flat run, H query heads, K key/value heads, D head size.

class AttentionView {
 public:
  virtual ~AttentionView() = default;
  /// Causal attention of layer `layer` with scale 1/sqrt(D).
  /// q: (T, H, D); k, v: (T, K, D), positions already rotated in. window: 0 or the number of
  /// tokens back that a query sees, itself included. Returns (T, H, D) in q's dtype.
  virtual at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, int64_t window) = 0;
};

/// Several sequences one behind the other; none sees another. Differentiable.
class PackedAttention final : public AttentionView {
 public:
  /// cu_seqlens: 0, then the end of each sequence; the last is T.
  explicit PackedAttention(std::vector<int64_t> cu_seqlens);
  at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    int64_t window) override;

 private:
  at::Tensor attend_each(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         int64_t window);
  at::Tensor attend_cuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         int64_t window);

  std::vector<int64_t> cu_seqlens_;
  int64_t max_seqlen_ = 0;
  at::Tensor cu_seqlens_device_;  // int32, made when a GPU kernel first asks
  // (sequence length, window) -> mask; the layers of a step share it.
  std::map<std::pair<int64_t, int64_t>, at::Tensor> window_masks_;
};

}  // namespace lorry::model
