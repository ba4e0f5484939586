#include "model/attention.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "model/device.h"

namespace lorry::model {
namespace {

// n tokens of one sequence, H query heads, K key/value heads, D head size.

/// (n, n), true where a query (row) may look: itself and the window - 1 tokens before.
at::Tensor window_mask(int64_t n, int64_t window, const at::Device& device) {
  const at::Tensor place = at::arange(n, at::TensorOptions().dtype(at::kLong).device(device));
  const at::Tensor distance = place.unsqueeze(1) - place.unsqueeze(0);
  return at::logical_and(distance >= 0, distance < window);
}

/// One sequence; q (n, H, D), k and v (n, K, D) -> (n, H, D).
at::Tensor attend_one(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      const std::optional<at::Tensor>& mask) {
  const auto heads_first = [](const at::Tensor& x) { return x.transpose(0, 1).unsqueeze(0); };
  const bool gqa = q.size(1) != k.size(1);
  const at::Tensor out =
      at::scaled_dot_product_attention(heads_first(q), heads_first(k), heads_first(v), mask, 0.0,
                                       /*is_causal=*/!mask.has_value(), std::nullopt, gqa);
  return out.squeeze(0).transpose(0, 1);
}

/// (T, K, D) -> (T, H, D): each key/value head repeated for its group of query heads.
at::Tensor expand_heads(const at::Tensor& x, int64_t heads) {
  if (x.size(1) == heads) return x;
  return x.repeat_interleave(heads / x.size(1), 1);
}

bool flash_takes(const at::Tensor& q) {
  const bool half = q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kHalf;
  return half && q.size(2) % 8 == 0 && q.size(2) <= 256 && compute_capability(q.device()) >= 80;
}

}  // namespace

PackedAttention::PackedAttention(std::vector<int64_t> cu_seqlens)
    : cu_seqlens_(std::move(cu_seqlens)) {
  for (size_t i = 1; i < cu_seqlens_.size(); ++i) {
    max_seqlen_ = std::max(max_seqlen_, cu_seqlens_[i] - cu_seqlens_[i - 1]);
  }
}

at::Tensor PackedAttention::attend(int64_t layer, const at::Tensor& q, const at::Tensor& k,
                                   const at::Tensor& v, int64_t window) {
  if (window >= max_seqlen_) window = 0;
  return q.is_cuda() ? attend_cuda(q, k, v, window) : attend_each(q, k, v, window);
}

at::Tensor PackedAttention::attend_each(const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v, int64_t window) {
  std::vector<at::Tensor> parts;
  for (size_t i = 1; i < cu_seqlens_.size(); ++i) {
    const int64_t start = cu_seqlens_[i - 1], n = cu_seqlens_[i] - start;
    if (n == 0) continue;
    std::optional<at::Tensor> mask;
    if (window > 0 && n > window) {
      at::Tensor& cached = window_masks_[{n, window}];
      if (!cached.defined()) cached = window_mask(n, window, q.device());
      mask = cached;
    }
    parts.push_back(
        attend_one(q.narrow(0, start, n), k.narrow(0, start, n), v.narrow(0, start, n), mask));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 0);
}

at::Tensor PackedAttention::attend_cuda(const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v, int64_t window) {
  if (!cu_seqlens_device_.defined()) {
    cu_seqlens_device_ = at::tensor(cu_seqlens_, at::kInt).to(q.device());
  }
  const auto& cu = cu_seqlens_device_;
  if (flash_takes(q)) {
    const auto left = window > 0 ? std::optional<int64_t>(window - 1) : std::nullopt;
    const auto right = window > 0 ? std::optional<int64_t>(0) : std::nullopt;
    return std::get<0>(at::_flash_attention_forward(q, k, v, cu, cu, max_seqlen_, max_seqlen_, 0.0,
                                                    /*is_causal=*/true, false, std::nullopt, left,
                                                    right));
  }
  constexpr int64_t kCausal = 1;
  const int64_t heads = q.size(1);
  const auto result = at::_efficient_attention_forward(
      q.unsqueeze(0), expand_heads(k, heads).unsqueeze(0), expand_heads(v, heads).unsqueeze(0),
      std::nullopt, cu, cu, max_seqlen_, max_seqlen_, 0.0, kCausal,
      /*compute_log_sumexp=*/at::GradMode::is_enabled(), std::nullopt, std::nullopt,
      window > 0 ? std::optional<int64_t>(window) : std::nullopt);
  return std::get<0>(result).squeeze(0);
}

}  // namespace lorry::model
