// Which two tokens merge, in which order of preference, and into what.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

#include "tokenizer/big_array.h"

namespace lorry::tokenizer {

/// A hash table of buckets of half a cache line, 8 bytes an entry, mostly a third full: what
/// unknown words cost is waiting for memory and guessing branches wrongly, so a look-up is one read
/// that can be asked for ahead, and no branch that depends on what it finds.
class MergeTable {
 public:
  static constexpr uint32_t kNone = (1u << 22) - 1;  ///< rank of pairs that do not merge
  static constexpr int32_t kMaxId = (1 << 21) - 1;

  void reserve(size_t merges) {
    const size_t slots = std::bit_ceil(2 * merges + 8 * kBucket);
    slots_ = BigArray<uint64_t>(slots);
    std::fill(slots_.begin(), slots_.end(), kFree);
    shift_ = 64 - std::countr_zero(slots / kBucket);
    ids_.reserve(merges);
  }

  /// The next merge in order; of one listed twice the last counts. Ids up to kMaxId, fewer than
  /// kNone merges.
  void add(int32_t left, int32_t right, int32_t id) {
    const uint64_t pair = key(left, right);
    size_t s = bucket_of(pair);
    while (slots_[s] != kFree && slots_[s] >> kRankBits != pair) s = (s + 1) & (slots_.size() - 1);
    slots_[s] = pair << kRankBits | ids_.size();
    ids_.push_back(id);
    first_id_ = id - static_cast<int32_t>(ids_.size()) + 1;
    in_order_ = in_order_ && first_id_ == ids_[0];
  }

  /// Asks the memory for what rank() will look at.
  void prefetch(int32_t left, int32_t right) const {
    __builtin_prefetch(&slots_[bucket_of(key(left, right))]);
  }

  uint32_t rank(int32_t left, int32_t right) const {
    const uint64_t pair = key(left, right);
    size_t s = bucket_of(pair);
    while (true) {
      uint32_t rank = kNone;
      for (size_t i = 0; i < kBucket; ++i) {
        const uint64_t slot = slots_[s + i];
        rank = slot >> kRankBits == pair ? static_cast<uint32_t>(slot) & kNone : rank;
      }
      // Entries lie without a gap behind the beginning of their bucket.
      if (rank != kNone || slots_[s + kBucket - 1] == kFree) return rank;
      s = (s + kBucket) & (slots_.size() - 1);
    }
  }

  /// What the merge of this rank makes.
  int32_t id(uint32_t rank) const {
    return in_order_ ? first_id_ + static_cast<int32_t>(rank) : ids_[rank];
  }

 private:
  static constexpr uint64_t kFree = UINT64_MAX;
  static constexpr int kRankBits = 22;
  static constexpr size_t kBucket = 4;

  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(left) << 21 | static_cast<uint32_t>(right);
  }
  /// The first slot of the pair's bucket.
  size_t bucket_of(uint64_t pair) const {
    pair *= 0x9E3779B97F4A7C15ull;
    return ((pair ^ pair >> 32) * 0xD6E8FEB86659FD93ull >> shift_) * kBucket;
  }

  BigArray<uint64_t> slots_;  // pair << kRankBits | rank
  std::vector<int32_t> ids_;  // by rank
  int shift_ = 0;
  int32_t first_id_ = 0;
  bool in_order_ = true;  // each merge makes the id behind that of the one before
};

}  // namespace lorry::tokenizer
