// Paged KV cache: one pool of fixed-size blocks for all sequences being served.
// Source of the idea: Kwon et al. 2023, arXiv:2309.06180 (PagedAttention).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "model/attention_view.h"
#include "model/spec.h"

namespace lorry::generate {

/// Not thread-safe: owned by the one thread that steps the model.
class KvCache {
 public:
  static constexpr int64_t kBlockTokens = 32;

  /// Room for `max_tokens` tokens over all sequences, rounded up to blocks.
  KvCache(const std::vector<model::LayerCache>& layers, int64_t max_tokens, at::ScalarType dtype,
          at::Device device);

  /// The blocks of one sequence. Give it back with `release`.
  struct Sequence {
    std::vector<int32_t> blocks;
    int64_t length = 0;  ///< tokens written
  };

  int64_t free_tokens() const;
  /// Blocks a sequence of `tokens` tokens needs.
  static int64_t blocks_for(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }
  /// Grows `sequence` to hold `tokens` tokens; false (and unchanged) if the pool is exhausted.
  bool reserve(Sequence& sequence, int64_t tokens);
  void release(Sequence& sequence);

 private:
  friend class CachedAttention;
  std::vector<at::Tensor> keys_, values_;  // by layer: (blocks, kBlockTokens, K, D or E)
  std::vector<int32_t> free_blocks_;
};

/// One step over several sequences: each brings the next `new_tokens[i]` tokens (a prompt, a part
/// of one, or a single token). Writes their keys and values to the cache, then attends to all of
/// the sequence. The caller has reserved the room and adds new_tokens to the lengths afterwards.
class CachedAttention final : public model::AttentionView {
 public:
  CachedAttention(KvCache& cache, std::vector<const KvCache::Sequence*> sequences,
                  std::vector<int64_t> new_tokens);
  at::Tensor attend(int64_t layer, const ops::AttentionParams& params, const at::Tensor& q,
                    const at::Tensor& k, const at::Tensor& v) override;
  at::Tensor context_lengths(at::Device device) const override;

 private:
  KvCache& cache_;
  std::vector<const KvCache::Sequence*> sequences_;
  std::vector<int64_t> new_tokens_;
  at::Tensor attend_chunk(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const at::Tensor& keys, const at::Tensor& values, size_t sequence,
                          const ops::AttentionParams& params);

  ops::MaskCache masks_;

  at::Tensor slots_;                // (T) int64: block * kBlockTokens + place, for each new token
  std::vector<at::Tensor> blocks_;  // int32, the used blocks of each sequence, on the device
};

}  // namespace lorry::generate
