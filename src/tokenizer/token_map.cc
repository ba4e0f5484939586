#include "tokenizer/token_map.h"

#include <algorithm>
#include <array>
#include <bit>

namespace lorry::tokenizer {

void TokenMap::reserve(size_t n) {
  entries_.reserve(n);
  arena_.reserve(n * 8);
  if (n * 2 > slots_.size()) grow(std::bit_ceil(n * 2));
}

void TokenMap::grow(size_t slots) {
  slots_.assign(slots, {});
  mask_ = slots - 1;
  for (uint32_t i = 0; i < entries_.size(); ++i) {
    const std::string_view k = key(entries_[i]);
    const uint64_t hash = hash_bytes(k.data(), k.size());
    size_t s = hash & mask_;
    while (slots_[s].entry != 0) s = (s + 1) & mask_;
    slots_[s] = {tag_of(hash), i + 1};
  }
}

void TokenMap::insert(std::string_view token, int32_t id) {
  if ((entries_.size() + 1) * 2 > slots_.size()) grow(slots_.empty() ? 64 : slots_.size() * 2);
  const uint64_t hash = hash_bytes(token.data(), token.size());
  if (const uint32_t known = find_entry(token, hash); known != 0) {
    entries_[known - 1].id = id;
    return;
  }
  entries_.push_back({arena_.size(), static_cast<uint32_t>(token.size()), id});
  arena_ += token;
  size_t s = hash & mask_;
  while (slots_[s].entry != 0) s = (s + 1) & mask_;
  slots_[s] = {tag_of(hash), static_cast<uint32_t>(entries_.size())};
}

uint32_t TokenMap::find_entry(std::string_view token, uint64_t hash) const {
  for (size_t s = hash & mask_; slots_[s].entry != 0; s = (s + 1) & mask_) {
    if (slots_[s].tag == tag_of(hash) && key(entries_[slots_[s].entry - 1]) == token)
      return slots_[s].entry;
  }
  return 0;
}

std::optional<int32_t> TokenMap::find(std::string_view token) const {
  if (slots_.empty()) return std::nullopt;
  const uint32_t entry = find_entry(token, hash_bytes(token.data(), token.size()));
  return entry != 0 ? std::optional(entries_[entry - 1].id) : std::nullopt;
}

// Each step asks the memory for what the next one reads, for a block of tokens at once.
void TokenMap::find(std::span<const std::string_view> tokens, int32_t* ids) const {
  if (slots_.empty()) return void(std::fill_n(ids, tokens.size(), kNone));
  constexpr size_t kBlock = 32;
  std::array<uint64_t, kBlock> hashes;
  for (; !tokens.empty(); tokens = tokens.subspan(std::min(kBlock, tokens.size()))) {
    const auto block = tokens.first(std::min(kBlock, tokens.size()));
    for (size_t i = 0; i < block.size(); ++i) {
      hashes[i] = hash_bytes(block[i].data(), block[i].size());
      __builtin_prefetch(&slots_[hashes[i] & mask_]);
    }
    // Mostly the first place is the right one.
    const auto likely = [&](size_t i) { return slots_[hashes[i] & mask_].entry; };
    for (size_t i = 0; i < block.size(); ++i) {
      if (likely(i) != 0) __builtin_prefetch(&entries_[likely(i) - 1]);
    }
    for (size_t i = 0; i < block.size(); ++i) {
      if (likely(i) != 0) __builtin_prefetch(arena_.data() + entries_[likely(i) - 1].begin);
    }
    for (size_t i = 0; i < block.size(); ++i) {
      const uint32_t entry = find_entry(block[i], hashes[i]);
      *ids++ = entry != 0 ? entries_[entry - 1].id : kNone;
    }
  }
}

}  // namespace lorry::tokenizer
