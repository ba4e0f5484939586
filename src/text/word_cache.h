// Words that a thread has encoded before, and their ids.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lorry::text {

/// A hash table of bounded size (a few MB) that empties itself when full. One thread's own.
class WordCache {
 public:
  static constexpr size_t kMaxWord = 64;  ///< bytes; longer words are not kept

  static bool fits(std::string_view word) { return word.size() <= kMaxWord; }
  /// This thread's cache for the vocabulary with this number.
  static WordCache& of_thread(uint64_t uid);

  WordCache();
  /// Appends the ids of `word` if they are known.
  bool find(std::string_view word, uint64_t hash, std::vector<int32_t>& ids) const;
  void insert(std::string_view word, uint64_t hash, std::span<const int32_t> ids);

 private:
  struct Slot {
    uint64_t hash = 0;
    uint32_t word = 0;  // into words_
    uint32_t ids = 0;   // into ids_
    uint8_t size = 0;   // bytes of the word; 0 is a free slot
    uint8_t n = 0;
  };
  void clear();

  std::vector<Slot> slots_;
  std::string words_;
  std::vector<int32_t> ids_;
  size_t used_ = 0;
};

}  // namespace lorry::text
