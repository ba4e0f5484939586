#include "ops/attention.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "ops/attention_packed.h"
#include "ops/device.h"

namespace lorry::ops {
namespace {

at::Tensor heads_first(const at::Tensor& x) { return x.transpose(0, 1); }

/// (T, K, D) -> (T, H, D): each key/value head repeated for its group of query heads.
at::Tensor expand_heads(const at::Tensor& x, int64_t heads) {
  if (x.size(1) == heads) return x;
  return x.repeat_interleave(heads / x.size(1), 1);
}

/// Soft caps and sinks, step by step: the softmax in float32, its weights rounded to v's dtype.
/// Source: `transformers`' eager_attention_forward of Gemma 2 and GPT-OSS.
at::Tensor attend_stepwise(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const AttentionParams& params, const at::Tensor& mask) {
  const int64_t heads = q.size(1), n = q.size(0);
  const at::Tensor keys = heads_first(expand_heads(k, heads));    // (H, L, D)
  const at::Tensor values = heads_first(expand_heads(v, heads));  // (H, L, E)
  at::Tensor scores = at::matmul(heads_first(q), keys.transpose(1, 2)) * params.scale;
  if (params.softcap > 0) scores = at::tanh(scores / params.softcap) * params.softcap;
  scores = scores.to(at::kFloat).masked_fill(at::logical_not(mask), -INFINITY);  // (H, n, L)
  if (!params.sinks.defined()) {
    return heads_first(at::matmul(scores.softmax(-1).to(v.scalar_type()), values));
  }
  const at::Tensor sinks = params.sinks.to(at::kFloat).view({heads, 1, 1}).expand({heads, n, 1});
  const at::Tensor weights = at::cat({scores, sinks}, -1).softmax(-1).narrow(-1, 0, k.size(0));
  return heads_first(at::matmul(weights.to(v.scalar_type()), values));
}

at::Tensor attend_fused(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const AttentionParams& params, const std::optional<at::Tensor>& mask,
                        bool is_causal) {
  const auto batched = [](const at::Tensor& x) { return heads_first(x).unsqueeze(0); };
  const at::Tensor out = at::scaled_dot_product_attention(batched(q), batched(k), batched(v), mask,
                                                          0.0, is_causal, params.scale,
                                                          /*enable_gqa=*/q.size(1) != k.size(1));
  return heads_first(out.squeeze(0));
}

bool flash_takes(const at::Tensor& q, const at::Tensor& v) {
  const bool half = q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kHalf;
  return half && q.size(2) == v.size(2) && q.size(2) % 8 == 0 && q.size(2) <= 256 &&
         compute_capability(q.device()) >= 80;
}

}  // namespace

const at::Tensor& MaskCache::get(int64_t n, int64_t length, int64_t window, at::Device device) {
  at::Tensor& mask = masks_[{{n, length}, window}];
  if (mask.defined()) return mask;
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  const at::Tensor distance = at::arange(length - n, length, options).unsqueeze(1) -
                              at::arange(length, options).unsqueeze(0);  // query - key
  mask = distance >= 0;
  if (window > 0) mask = at::logical_and(mask, distance < window);
  return mask;
}

at::Tensor attend_one(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      const AttentionParams& params, MaskCache& masks) {
  const int64_t n = q.size(0), length = k.size(0);
  const int64_t window = params.window >= length ? 0 : params.window;
  if (!params.is_fused()) {
    return attend_stepwise(q, k, v, params, masks.get(n, length, window, q.device()));
  }
  const bool is_causal = n == length && window == 0;
  std::optional<at::Tensor> mask;
  // One new token sees the whole of what it was given, unless a window cuts it.
  if (!is_causal && (n > 1 || window > 0)) mask = masks.get(n, length, window, q.device());
  return attend_fused(q, k, v, params, mask, is_causal && n > 1);
}

PackedSequences::PackedSequences(std::vector<int64_t> cu_seqlens, at::Tensor cu_seqlens_device)
    : cu_seqlens_(std::make_shared<const std::vector<int64_t>>(std::move(cu_seqlens))),
      cu_seqlens_device_(std::move(cu_seqlens_device)) {
  const auto& ends = *cu_seqlens_;
  for (size_t i = 1; i < ends.size(); ++i) {
    max_seqlen_ = std::max(max_seqlen_, ends[i] - ends[i - 1]);
  }
}

at::Tensor PackedSequences::attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const AttentionParams& params) {
  const bool fused = params.is_fused() && q.size(2) == v.size(2);
  if (q.is_cuda() && fused) return attend_cuda(q, k, v, params);
  if (cpu::attends_packed(q, v, params, max_seqlen_)) {
    return cpu::attend_packed(q, k, v, params.scale, cu_seqlens_);
  }
  return attend_each(q, k, v, params);
}

at::Tensor PackedSequences::attend_joined(const at::Tensor& qkv, int64_t heads, int64_t kv_heads,
                                          const AttentionParams& params) {
  const int64_t d = qkv.size(1) / (heads + 2 * kv_heads);
  const auto parts = qkv.unflatten(1, {-1, d}).split_with_sizes({heads, kv_heads, kv_heads}, 1);
  if (!cpu::attends_packed(parts[0], parts[2], params, max_seqlen_)) {
    return attend(parts[0], parts[1], parts[2], params);
  }
  return cpu::attend_packed_joined(qkv, heads, kv_heads, params.scale, cu_seqlens_);
}

at::Tensor PackedSequences::attend_each(const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v, const AttentionParams& params) {
  std::vector<at::Tensor> parts;
  const auto& ends = *cu_seqlens_;
  for (size_t i = 1; i < ends.size(); ++i) {
    const int64_t start = ends[i - 1], n = ends[i] - start;
    if (n == 0) continue;
    parts.push_back(attend_one(q.narrow(0, start, n), k.narrow(0, start, n), v.narrow(0, start, n),
                               params, masks_));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 0);
}

at::Tensor PackedSequences::attend_cuda(const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v, const AttentionParams& params) {
  if (!cu_seqlens_device_.defined()) {
    cu_seqlens_device_ = at::tensor(*cu_seqlens_, at::kInt).to(q.device());
  }
  const auto& cu = cu_seqlens_device_;
  const int64_t window = params.window >= max_seqlen_ ? 0 : params.window;
  if (flash_takes(q, v)) {
    const auto left = window > 0 ? std::optional<int64_t>(window - 1) : std::nullopt;
    const auto right = window > 0 ? std::optional<int64_t>(0) : std::nullopt;
    return std::get<0>(at::_flash_attention_forward(q, k, v, cu, cu, max_seqlen_, max_seqlen_, 0.0,
                                                    /*is_causal=*/true, false, params.scale, left,
                                                    right));
  }
  constexpr int64_t kCausal = 1;
  const int64_t heads = q.size(1);
  const auto result = at::_efficient_attention_forward(
      q.unsqueeze(0), expand_heads(k, heads).unsqueeze(0), expand_heads(v, heads).unsqueeze(0),
      std::nullopt, cu, cu, max_seqlen_, max_seqlen_, 0.0, kCausal,
      /*compute_log_sumexp=*/at::GradMode::is_enabled(), params.scale, std::nullopt,
      window > 0 ? std::optional<int64_t>(window) : std::nullopt);
  return std::get<0>(result).squeeze(0);
}

}  // namespace lorry::ops
