#include "generate/kv_cache.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "ops/cpu_kernels.h"

namespace lorry::generate {
// n new tokens of one sequence of L tokens in all; K key/value heads, H query heads, D head size.

KvCache::KvCache(const std::vector<model::LayerCache>& layers, int64_t max_tokens,
                 at::ScalarType dtype, at::Device device) {
  const int64_t blocks = blocks_for(max_tokens);
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  for (const model::LayerCache& layer : layers) {
    keys_.push_back(at::empty({blocks, kBlockTokens, layer.kv_heads, layer.key_dim}, options));
    values_.push_back(at::empty({blocks, kBlockTokens, layer.kv_heads, layer.value_dim}, options));
  }
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
  const at::Device device = cache_.keys_[0].device();
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
                                         const ops::AttentionParams& params) {
  const int64_t n = q.size(0), past = sequences_[sequence]->length, length = past + n;
  if (past == 0) return ops::attend_one(q, k, v, params, masks_);
  // The first new token sees the farthest back; the cache is read from the block that begins there.
  const int64_t first = params.window > 0 ? std::max<int64_t>(past + 1 - params.window, 0) : 0;
  const int64_t first_block = first / KvCache::kBlockTokens;
  const at::Tensor& blocks = blocks_[sequence];
  const at::Tensor index = blocks.narrow(0, first_block, blocks.size(0) - first_block);
  const auto gather = [&](const at::Tensor& pool) {
    return pool.index_select(0, index)
        .flatten(0, 1)
        .narrow(0, first - first_block * KvCache::kBlockTokens, length - first)
        .to(q.scalar_type());
  };
  return ops::attend_one(q, gather(keys), gather(values), params, masks_);
}

at::Tensor CachedAttention::context_lengths(at::Device device) const {
  std::vector<int64_t> lengths;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    lengths.insert(lengths.end(), new_tokens_[i], sequences_[i]->length + new_tokens_[i]);
  }
  return at::tensor(lengths, at::kLong).to(device);
}

at::Tensor CachedAttention::attend(int64_t layer, const ops::AttentionParams& params,
                                   const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const at::Tensor& keys = cache_.keys_[layer];
  const at::Tensor& values = cache_.values_[layer];
  keys.flatten(0, 1).index_copy_(0, slots_, k.to(keys.scalar_type()));
  values.flatten(0, 1).index_copy_(0, slots_, v.to(values.scalar_type()));

  const bool has_kernel = ops::cpu::takes(q) && keys.scalar_type() == q.scalar_type();
  const at::Tensor queries = q.contiguous();
  at::Tensor out = at::empty({q.size(0), q.size(1), v.size(2)}, q.options());
  std::vector<ops::cpu::PagedRow> single;
  int64_t start = 0;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const int64_t n = new_tokens_[i], length = sequences_[i]->length + n;
    if (n == 1 && has_kernel) {
      const int64_t first = params.window > 0 ? std::max<int64_t>(length - params.window, 0) : 0;
      single.push_back({start, sequences_[i]->blocks.data(), first, length});
    } else if (n > 0) {
      out.narrow(0, start, n)
          .copy_(attend_chunk(queries.narrow(0, start, n), k.narrow(0, start, n),
                              v.narrow(0, start, n), keys, values, i, params));
    }
    start += n;
  }
  if (!single.empty()) ops::cpu::attend_paged(queries, keys, values, single, params, out);
  return out;
}

}  // namespace lorry::generate
