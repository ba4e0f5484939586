// Paged KV cache: one pool of cache blocks of fixed size for all sequences; sequences may share
// blocks. Source of the idea: Kwon et al. 2023, arXiv:2309.06180 (PagedAttention).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "generate/block_pool.h"
#include "model/spec.h"

namespace lorry::generate {

/// Keys and values of every layer in cache blocks of kBlockTokens tokens; block b of a sequence
/// holds its tokens [b * kBlockTokens, (b + 1) * kBlockTokens) in all layers. Blocks are counted: a
/// block that several sequences hold is read-only, and `reserve` copies it for the one that is
/// about to write to it. Not thread-safe: owned by the one thread that steps the model.
class KvCache {
 public:
  static constexpr int64_t kBlockTokens = 32;

  /// Room for `max_tokens` tokens over all sequences, rounded up to blocks. layout: one entry a
  /// layer. devices: of each rank of the model, all with the same layout; most often one.
  KvCache(const std::vector<model::LayerCache>& layout, int64_t max_tokens, at::ScalarType dtype,
          const std::vector<at::Device>& devices);

  /// The blocks of one sequence. A plain value: end it with `release`; do not copy it, `fork` it.
  struct Sequence {
    std::vector<int32_t> blocks;
    int64_t length = 0;  ///< tokens written
  };

  int64_t free_tokens() const { return pool_.free_count() * kBlockTokens; }
  /// Blocks a sequence of `tokens` tokens needs.
  static int64_t blocks_for(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

  /// Makes the places [length, tokens) of `sequence` its own to write: adds blocks, and copies the
  /// last one if it is partly filled and shared. False, and nothing changed, if too few blocks are
  /// free.
  bool reserve(Sequence& sequence, int64_t tokens);
  /// Drops all blocks; the sequence is empty afterwards.
  void release(Sequence& sequence);
  /// Forgets the tokens from `length` on, which is at most the sequence's own, and drops the blocks
  /// that held nothing else.
  void truncate(Sequence& sequence, int64_t length);
  /// A second sequence with the same tokens, sharing their blocks. Takes no free block.
  Sequence fork(const Sequence& sequence);
  /// Begins an empty sequence with full blocks that something else holds, a prefix computed before.
  void attach(Sequence& sequence, std::span<const int32_t> blocks);

  /// Hold a block beyond the sequences that use it, as a cache of prefixes does.
  void retain(int32_t block) { pool_.retain(block); }
  void release(int32_t block) { pool_.release(block); }
  /// Whether more than one holds it.
  bool is_shared(int32_t block) const { return pool_.is_shared(block); }

  /// Of keys and values in all layers, on all devices.
  int64_t bytes() const;
  int64_t layers() const { return static_cast<int64_t>(parts_[0].keys.size()); }
  /// (blocks, kBlockTokens, kv_heads, key_dim).
  const at::Tensor& keys(int64_t layer, int64_t rank = 0) const {
    return parts_[static_cast<size_t>(rank)].keys[static_cast<size_t>(layer)];
  }
  /// (blocks, kBlockTokens, kv_heads, value_dim).
  const at::Tensor& values(int64_t layer, int64_t rank = 0) const {
    return parts_[static_cast<size_t>(rank)].values[static_cast<size_t>(layer)];
  }

 private:
  /// What one rank holds, by layer.
  struct Part {
    std::vector<at::Tensor> keys, values;
  };
  static std::vector<Part> make_parts(const std::vector<model::LayerCache>& layout,
                                      int64_t max_tokens, at::ScalarType dtype,
                                      const std::vector<at::Device>& devices);
  void copy_block(int32_t from, int32_t to);

  std::vector<Part> parts_;  // by rank
  BlockPool pool_;  // after them: a size that no memory holds fails there, and says its bytes
};

}  // namespace lorry::generate
