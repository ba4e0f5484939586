// Words that a thread has encoded before, and their ids.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/big_array.h"

namespace lorry::text {

/// A bounded cache (some MB), one thread's own. Words of up to 16 bytes with up to eleven ids have
/// a cache line each, in one of two places; a new word takes an old one's. Longer ones, which are
/// rare, are in a table that empties itself when full.
class WordCache {
 public:
  static constexpr size_t kMaxWord = 255;  ///< bytes; longer words are not kept

  static constexpr size_t kMaxIds = 11;  ///< of a short word
  static constexpr size_t kSlack = 4;

  /// A word of up to 16 bytes with zeros behind it.
  struct Key {
    uint64_t a = 0, b = 0;
    bool operator==(const Key&) const = default;
  };
  struct alignas(64) Line {
    Key key;
    uint8_t size = 0;  ///< bytes of the word; 0: free
    uint8_t n = 0;
    int32_t ids[kMaxIds] = {};
  };
  static constexpr size_t kShort = sizeof(Key);

  static bool fits(std::string_view word) { return word.size() <= kMaxWord; }
  /// This thread's cache for the vocabulary with this number.
  static WordCache& of_thread(uint64_t uid);

  WordCache();

  /// `word` has at most kShort bytes; `readable` says how many may be read from its beginning.
  static Key key_of(const char* word, size_t size, size_t readable) {
    Key key;
    if (readable >= kShort) {
      std::memcpy(&key, word, kShort);
      mask(key, size);
    } else {
      std::memcpy(&key, word, size);
    }
    return key;
  }
  static uint64_t hash(const Key& key) {
    const auto product = static_cast<unsigned __int128>(key.a ^ 0x9E3779B97F4A7C15ull) *
                         (key.b ^ 0xD6E8FEB86659FD93ull);
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }

  /// Asks the memory for what find() and find_long() will look at.
  void prefetch(uint64_t hash) const { __builtin_prefetch(&lines_[hash & mask_]); }
  void prefetch_long(uint64_t hash) const { __builtin_prefetch(&slots_[hash % kSlots]); }

  /// The line of a short word, or nullptr.
  const Line* find(const Key& key, size_t size, uint64_t hash) const {
    const Line* const first = &lines_[hash & mask_];
    if (first->key == key && first->size == size) return first;
    const Line* const second = &lines_[(hash & mask_) ^ 1];
    return second->key == key && second->size == size ? second : nullptr;
  }
  void insert(const Key& key, size_t size, uint64_t hash, std::span<const int32_t> ids);

  /// The ids of a longer word, or none. They stay where they are until insert_long(), with room for
  /// kSlack more to be read behind them.
  std::span<const int32_t> find_long(std::string_view word, uint64_t hash) const;
  void insert_long(std::string_view word, uint64_t hash, std::span<const int32_t> ids);

 private:
  static void mask(Key& key, size_t size) {
    static constexpr auto kBytes = [] {
      std::array<uint8_t, 2 * kShort> bytes{};
      for (size_t i = 0; i < kShort; ++i) bytes[i] = 0xFF;
      return bytes;
    }();
    Key keep;
    std::memcpy(&keep, &kBytes[kShort - size], kShort);
    key.a &= keep.a, key.b &= keep.b;
  }

  struct Slot {
    uint64_t hash = 0;
    uint32_t word = 0;  // into words_
    uint32_t ids = 0;   // into ids_
    uint8_t size = 0;   // bytes of the word; 0 is a free slot
    uint8_t n = 0;
  };
  void clear_long();

  BigArray<Line> lines_;
  uint64_t mask_ = 0;  // lines - 1
  static constexpr size_t kSlots = 1 << 16;
  BigArray<Slot> slots_{kSlots};
  std::string words_;
  std::vector<int32_t> ids_;
  size_t used_ = 0;
};

}  // namespace lorry::text
