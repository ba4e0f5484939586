// Prefix sharing: full cache blocks are known by what they hold, and sequences that begin alike
// share them. Source of the idea: Kwon et al. 2023, arXiv:2309.06180, section 4.4; blocks that no
// sequence holds stay known until their room is needed, as in vLLM's automatic prefix caching.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "generate/kv_cache.h"

namespace lorry::model {
class LoraAdapter;
}

namespace lorry::generate {

/// Hands out a KvCache's blocks to sequences. A block is known by the known block before it and by
/// its token ids; the first of a sequence by its root: the adapter and whatever else keys and
/// values depend on. Ids are compared, not only their hash. A block that no sequence holds is
/// evicted when room is needed, the one that was used the longest ago first, and never before those
/// after it.
///
/// Without `enabled` no block is ever known. Not thread-safe.
class PrefixCache {
 public:
  /// The blocks of one sequence and how many of them are known. End it with `release`.
  struct Sequence : KvCache::Sequence {
    uint64_t root = 0;
    uint64_t last_known = 0;  ///< serial of the last known block; the root if there is none
    int64_t known_blocks = 0;
  };

  /// `cache` must outlive it, and all of its blocks be free.
  PrefixCache(KvCache& cache, bool enabled);

  /// The root of sequences that `adapter` computes (null: the base model). `variant` tells apart
  /// keys that differ for another reason: 0 or 1. The same for the same adapter while it lives; one
  /// that is made later, even at the same address, has another.
  uint64_t root(const std::shared_ptr<const model::LoraAdapter>& adapter, int variant);

  /// Begins an empty sequence with the known blocks of its first `most` tokens: `length` says how
  /// many are there. `salt`: only sequences of the same salt share.
  void begin(Sequence& sequence, uint64_t root, std::string_view salt,
             std::span<const int32_t> tokens, int64_t most);
  /// Makes the blocks known that `length` tokens of `tokens` fill. A block that was known already
  /// takes the place of the sequence's own.
  void extend(Sequence& sequence, std::string_view salt, std::span<const int32_t> tokens);

  /// As KvCache's, after evicting what is needed.
  bool reserve(Sequence& sequence, int64_t tokens);
  /// Drops all blocks; those that are known stay so. The sequence is empty afterwards.
  void release(Sequence& sequence);
  /// Drops the blocks after those that `tokens` tokens need; never known ones.
  void trim(Sequence& sequence, int64_t tokens);

  int64_t capacity_tokens() const { return capacity_tokens_; }
  /// In blocks that no sequence holds, known ones included.
  int64_t free_tokens() const {
    return cache_.free_tokens() + static_cast<int64_t>(idle_.size()) * KvCache::kBlockTokens;
  }

 private:
  struct Key {
    uint64_t before = 0;           // serial of the block before it, or a root
    std::vector<int32_t> content;  // token ids; of a first block, the salt's bytes after them
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };
  struct Block {
    uint64_t serial = 0;                 // never given twice; 0: not known
    const Key* key = nullptr;            // in by_key_
    bool idle = false;                   // no sequence holds it
    std::list<int32_t>::iterator place;  // in idle_, if it is idle
  };
  using Roots = std::array<uint64_t, 2>;

  /// Of the sequence's block after its known ones.
  const Key& next_key(const Sequence& sequence, std::string_view salt,
                      std::span<const int32_t> tokens);
  void make_known(const Key& key, int32_t block);
  void add_known(Sequence& sequence, int32_t block);
  void set_idle(int32_t block);
  void set_held(int32_t block);
  void evict();

  KvCache& cache_;
  bool enabled_;
  int64_t capacity_tokens_;
  uint64_t serials_ = 0;  // given so far
  Roots base_roots_;
  std::map<std::weak_ptr<const model::LoraAdapter>, Roots, std::owner_less<>> roots_;
  std::unordered_map<Key, int32_t, KeyHash> by_key_;
  std::vector<Block> blocks_;  // by number
  std::list<int32_t> idle_;    // the one that was used the longest ago first
  Key key_;                    // of the last call of next_key
};

}  // namespace lorry::generate
