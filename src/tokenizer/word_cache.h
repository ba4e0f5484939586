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

#include "tokenizer/big_array.h"

namespace lorry::tokenizer {

/// A bounded cache (some MB), one thread's own. A word of up to 15 bytes is in the one cache line
/// that its hash names: two words of up to four ids share a line, one of up to twelve has it alone;
/// a new word takes an old one's place. Other words, which are rare, are in a table that empties
/// itself when full.
class WordCache {
 public:
  static constexpr size_t kMaxWord = 255;  ///< bytes; longer words are not kept
  static constexpr size_t kShort = 15;     ///< bytes of a word that has a place in a line
  static constexpr size_t kMaxIds = 12;    ///< of a short word
  static constexpr size_t kSlack = 4;

  /// A short word's bytes, zeros, and its size in the last byte.
  struct Key {
    uint64_t a = 0, b = 0;
  };
  /// What a word became. Behind `ids`, kSlack more may be read.
  struct Known {
    const int32_t* ids = nullptr;  ///< nullptr: not known
    size_t n = 0;
  };

  static bool fits(std::string_view word) { return word.size() <= kMaxWord; }
  /// This thread's cache for the vocabulary with this number.
  static WordCache& of_thread(uint64_t uid);

  WordCache();

  /// `word` has at most kShort bytes; `readable` says how many may be read from its beginning.
  static Key key_of(const char* word, size_t size, size_t readable) {
    Key key;
    if (readable >= sizeof key) {
      std::memcpy(&key, word, sizeof key);
      mask(key, size);
    } else {
      std::memcpy(&key, word, size);
    }
    key.b |= uint64_t{size} << 56;
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

  Known find(const Key& key, uint64_t hash) const {
    const Line& line = lines_[hash & mask_];
    const auto is = [&](const Entry& e) {
      return e.key.a == key.a && ((e.key.b ^ key.b) & kKeyBits) == 0;
    };
    if (is(line.first)) return {line.first.ids, line.first.n()};
    if (is(line.second)) return {line.second.ids, line.second.n()};
    return {};
  }
  /// Keeps up to kMaxIds ids.
  void insert(const Key& key, uint64_t hash, std::span<const int32_t> ids);

  /// A longer word; what is found stays where it is until insert_long().
  Known find_long(std::string_view word, uint64_t hash) const;
  void insert_long(std::string_view word, uint64_t hash, std::span<const int32_t> ids);

 private:
  static void mask(Key& key, size_t size) {
    static constexpr auto kBytes = [] {
      std::array<uint8_t, 2 * sizeof(Key)> bytes{};
      for (size_t i = 0; i < sizeof(Key); ++i) bytes[i] = 0xFF;
      return bytes;
    }();
    Key keep;
    std::memcpy(&keep, &kBytes[sizeof(Key) - size], sizeof keep);
    key.a &= keep.a, key.b &= keep.b;
  }

  // How many ids there are stands in the four bits above the key's size, which is 0 where nothing
  // is. Ids in the place of a second key look like nothing, since they have zeros there.
  static constexpr int kCountShift = 60;
  static constexpr uint64_t kKeyBits = (uint64_t{1} << kCountShift) - 1;
  struct Entry {
    Key key;
    int32_t ids[4] = {};
    size_t n() const { return key.b >> kCountShift; }
  };
  struct alignas(64) Line {
    Entry first, second;
  };

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

}  // namespace lorry::tokenizer
