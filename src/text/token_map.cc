#include "text/token_map.h"

#include <bit>

namespace lorry::text {

void TokenMap::reserve(size_t n) {
  entries_.reserve(n);
  arena_.reserve(n * 8);
  if (n * 2 > slots_.size()) grow(std::bit_ceil(n * 2));
}

void TokenMap::grow(size_t slots) {
  slots_.assign(slots, 0);
  mask_ = slots - 1;
  for (uint32_t i = 0; i < entries_.size(); ++i) {
    const std::string_view k = key(entries_[i]);
    size_t s = hash_bytes(k.data(), k.size()) & mask_;
    while (slots_[s]) s = (s + 1) & mask_;
    slots_[s] = i + 1;
  }
}

void TokenMap::insert(std::string_view token, int32_t id) {
  if ((entries_.size() + 1) * 2 > slots_.size()) grow(slots_.empty() ? 64 : slots_.size() * 2);
  size_t s = hash_bytes(token.data(), token.size()) & mask_;
  for (; slots_[s]; s = (s + 1) & mask_) {
    Entry& e = entries_[slots_[s] - 1];
    if (key(e) == token) {
      e.id = id;
      return;
    }
  }
  entries_.push_back({arena_.size(), static_cast<uint32_t>(token.size()), id});
  arena_ += token;
  slots_[s] = static_cast<uint32_t>(entries_.size());
}

std::optional<int32_t> TokenMap::find(std::string_view token) const {
  if (slots_.empty()) return std::nullopt;
  for (size_t s = hash_bytes(token.data(), token.size()) & mask_; slots_[s]; s = (s + 1) & mask_) {
    const Entry& e = entries_[slots_[s] - 1];
    if (key(e) == token) return e.id;
  }
  return std::nullopt;
}

}  // namespace lorry::text
