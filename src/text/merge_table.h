// Which two tokens merge, in which order of preference, and into what.
#pragma once

#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

namespace lorry::text {

/// A hash table that stays small, 8 bytes a slot: what unknown words cost is misses of the
/// processor's cache.
class MergeTable {
 public:
  static constexpr uint32_t kNone = (1u << 22) - 1;  ///< rank of pairs that do not merge
  static constexpr int32_t kMaxId = (1 << 21) - 1;

  void reserve(size_t merges) {
    const size_t slots = std::bit_ceil(merges + merges / 2 + 16);
    slots_.assign(slots, kFree);
    slot_shift_ = 64 - std::countr_zero(slots);
    ids_.reserve(merges);
  }

  /// The next merge in order; of one listed twice the last counts. Ids up to kMaxId, fewer than
  /// kNone merges.
  void add(int32_t left, int32_t right, int32_t id) {
    const uint64_t pair = key(left, right);
    size_t s = hash_of(pair) >> slot_shift_;
    while (slots_[s] != kFree && slots_[s] >> kRankBits != pair) s = (s + 1) & (slots_.size() - 1);
    slots_[s] = pair << kRankBits | ids_.size();
    ids_.push_back(id);
  }

  uint32_t rank(int32_t left, int32_t right) const {
    const uint64_t pair = key(left, right);
    for (size_t s = hash_of(pair) >> slot_shift_;; s = (s + 1) & (slots_.size() - 1)) {
      const uint64_t slot = slots_[s];
      if (slot >> kRankBits == pair) {
        const auto rank = static_cast<uint32_t>(slot) & kNone;
        __builtin_prefetch(&ids_[rank]);
        return rank;
      }
      if (slot == kFree) return kNone;
    }
  }

  /// What the merge of this rank makes.
  int32_t id(uint32_t rank) const { return ids_[rank]; }

 private:
  static constexpr uint64_t kFree = UINT64_MAX;
  static constexpr int kRankBits = 22;

  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(left) << 21 | static_cast<uint32_t>(right);
  }
  static uint64_t hash_of(uint64_t pair) {
    pair *= 0x9E3779B97F4A7C15ull;
    return (pair ^ pair >> 32) * 0xD6E8FEB86659FD93ull;
  }

  std::vector<uint64_t> slots_;  // pair << kRankBits | rank
  std::vector<int32_t> ids_;     // by rank
  int slot_shift_ = 0;
};

}  // namespace lorry::text
