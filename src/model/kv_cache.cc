#include "model/kv_cache.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "model/cpu_kernels.h"

namespace lorry::model {
namespace {

// n new tokens of one sequence of L tokens in all; K key/value heads, G query heads for each, D
// head size; H = K * G.

/// (n, L), true where new token i (a query) may look: up to its own place, `window` tokens back.
at::Tensor lower_right_mask(int64_t n, int64_t length, int64_t window, const at::Device& device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  const at::Tensor query = at::arange(length - n, length, options).unsqueeze(1);
  const at::Tensor key = at::arange(length, options).unsqueeze(0);
  const at::Tensor distance = query - key;
  const at::Tensor causal = distance >= 0;
  return window > 0 ? at::logical_and(causal, distance < window) : causal;
}

/// q (n, H, D); k, v (L, K, D) -> (n, H, D).
at::Tensor attend_one(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      int64_t window) {
  const int64_t n = q.size(0), length = k.size(0);
  const auto heads_first = [](const at::Tensor& x) { return x.transpose(0, 1).unsqueeze(0); };
  const bool plain = n == length && (window == 0 || window >= length);
  std::optional<at::Tensor> mask;
  if (!plain && n > 1) mask = lower_right_mask(n, length, window, q.device());
  const at::Tensor out = at::scaled_dot_product_attention(
      heads_first(q), heads_first(k), heads_first(v), mask, 0.0, /*is_causal=*/plain && n > 1,
      std::nullopt, /*enable_gqa=*/q.size(1) != k.size(1));
  return out.squeeze(0).transpose(0, 1);
}

}  // namespace

KvCache::KvCache(const ModelConfig& config, int64_t max_tokens, at::ScalarType dtype,
                 at::Device device) {
  const int64_t blocks = blocks_for(max_tokens);
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  const std::vector<int64_t> shape = {config.num_hidden_layers, blocks, kBlockTokens,
                                      config.num_key_value_heads, config.head_dim};
  keys_ = at::empty(shape, options);
  values_ = at::empty(shape, options);
  // Taken from the end, so that the low blocks go first and untouched memory stays unused.
  for (int64_t block = blocks; block > 0; --block) {
    free_blocks_.push_back(static_cast<int32_t>(block - 1));
  }
}

int64_t KvCache::free_tokens() const {
  return static_cast<int64_t>(free_blocks_.size()) * kBlockTokens;
}

bool KvCache::reserve(Sequence& sequence, int64_t tokens) {
  const int64_t missing = blocks_for(tokens) - static_cast<int64_t>(sequence.blocks.size());
  if (missing > static_cast<int64_t>(free_blocks_.size())) return false;
  for (int64_t i = 0; i < missing; ++i) {
    sequence.blocks.push_back(free_blocks_.back());
    free_blocks_.pop_back();
  }
  return true;
}

void KvCache::release(Sequence& sequence) {
  free_blocks_.insert(free_blocks_.end(), sequence.blocks.rbegin(), sequence.blocks.rend());
  sequence.blocks.clear();
  sequence.length = 0;
}

CachedAttention::CachedAttention(KvCache& cache, std::vector<const KvCache::Sequence*> sequences,
                                 std::vector<int64_t> new_tokens)
    : cache_(cache), sequences_(std::move(sequences)), new_tokens_(std::move(new_tokens)) {
  constexpr int64_t kBlock = KvCache::kBlockTokens;
  std::vector<int64_t> slots;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const auto& sequence = *sequences_[i];
    for (int64_t place = sequence.length; place < sequence.length + new_tokens_[i]; ++place) {
      slots.push_back(sequence.blocks[place / kBlock] * kBlock + place % kBlock);
    }
  }
  const at::Device device = cache_.keys_.device();
  slots_ = at::tensor(slots, at::kLong).to(device);
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const auto& blocks = sequences_[i]->blocks;
    const int64_t used = KvCache::blocks_for(sequences_[i]->length + new_tokens_[i]);
    blocks_.push_back(at::tensor(at::ArrayRef<int32_t>(blocks.data(), used), at::kInt).to(device));
  }
}

/// One sequence's rows q (n, H, D), k and v (n, K, D), after k and v were written to the pools.
at::Tensor CachedAttention::attend_chunk(const at::Tensor& q, const at::Tensor& k,
                                         const at::Tensor& v, const at::Tensor& keys,
                                         const at::Tensor& values, size_t sequence,
                                         int64_t window) const {
  const int64_t n = q.size(0), past = sequences_[sequence]->length, length = past + n;
  if (past == 0) return attend_one(q, k, v, window);
  // The first new token sees the farthest back; the cache is read from the block that begins there.
  const int64_t first = window > 0 ? std::max<int64_t>(past + 1 - window, 0) : 0;
  const int64_t first_block = first / KvCache::kBlockTokens;
  const at::Tensor& blocks = blocks_[sequence];
  const at::Tensor index = blocks.narrow(0, first_block, blocks.size(0) - first_block);
  const auto gather = [&](const at::Tensor& pool) {
    return pool.index_select(0, index)
        .flatten(0, 1)
        .narrow(0, first - first_block * KvCache::kBlockTokens, length - first)
        .to(q.scalar_type());
  };
  return attend_one(q, gather(keys), gather(values), window);
}

at::Tensor CachedAttention::attend(int64_t layer, const at::Tensor& q, const at::Tensor& k,
                                   const at::Tensor& v, int64_t window) {
  const at::Tensor keys = cache_.keys_[layer], values = cache_.values_[layer];
  keys.flatten(0, 1).index_copy_(0, slots_, k.to(keys.scalar_type()));
  values.flatten(0, 1).index_copy_(0, slots_, v.to(values.scalar_type()));

  const bool has_kernel = cpu::takes(q) && keys.scalar_type() == q.scalar_type();
  const at::Tensor queries = q.contiguous();
  at::Tensor out = at::empty_like(queries);
  std::vector<cpu::DecodeRow> single;
  int64_t start = 0;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const int64_t n = new_tokens_[i], length = sequences_[i]->length + n;
    if (n == 1 && has_kernel) {
      const int64_t first = window > 0 ? std::max<int64_t>(length - window, 0) : 0;
      single.push_back({start, sequences_[i]->blocks.data(), first, length});
    } else if (n > 0) {
      out.narrow(0, start, n)
          .copy_(attend_chunk(queries.narrow(0, start, n), k.narrow(0, start, n),
                              v.narrow(0, start, n), keys, values, i, window));
    }
    start += n;
  }
  if (!single.empty()) cpu::attend_paged(queries, keys, values, single, out);
  return out;
}

}  // namespace lorry::model
