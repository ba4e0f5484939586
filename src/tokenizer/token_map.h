// Token strings to ids and back: a flat hash table made for loading 150,000 entries quickly.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lorry::tokenizer {

/// A fast hash of short byte strings; not for adversaries beyond bounded probe cost.
inline uint64_t hash_bytes(const char* p, size_t n) {
  constexpr uint64_t kA = 0x9E3779B97F4A7C15ull, kB = 0xD6E8FEB86659FD93ull;
  const auto mix = [](uint64_t a, uint64_t b) {
    const auto m = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(m) ^ static_cast<uint64_t>(m >> 64);
  };
  uint64_t h = n * kA;
  while (n >= 8) {
    uint64_t w;
    std::memcpy(&w, p, 8);
    h = mix(h ^ w, kB);
    p += 8, n -= 8;
  }
  uint64_t w = 0;
  std::memcpy(&w, p, n);
  return mix(h ^ w, kA) ^ h >> 29;
}

/// Strings live in one arena. Ids may repeat and have gaps, and are not negative.
class TokenMap {
 public:
  static constexpr int32_t kNone = -1;

  void reserve(size_t n);
  /// A string that is there already gets the new id, as a JSON object's repeated key would.
  void insert(std::string_view token, int32_t id);
  std::optional<int32_t> find(std::string_view token) const;
  /// The ids of many tokens, kNone for those that are not there, several times as fast as one by
  /// one.
  void find(std::span<const std::string_view> tokens, int32_t* ids) const;
  size_t size() const { return entries_.size(); }

  template <typename F>  // f(std::string_view token, int32_t id)
  void for_each(F f) const {
    for (const Entry& e : entries_) f(key(e), e.id);
  }

 private:
  struct Entry {
    uint64_t begin;
    uint32_t size;
    int32_t id;
  };
  struct Slot {
    uint32_t tag = 0;    // other bits of the hash than the place depends on
    uint32_t entry = 0;  // its index + 1; 0 is free
  };
  std::string_view key(const Entry& e) const { return {arena_.data() + e.begin, e.size}; }
  static uint32_t tag_of(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }
  uint32_t find_entry(std::string_view token, uint64_t hash) const;
  void grow(size_t slots);

  std::string arena_;
  std::vector<Entry> entries_;
  std::vector<Slot> slots_;
  size_t mask_ = 0;
};

}  // namespace lorry::tokenizer
