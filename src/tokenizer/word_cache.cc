#include "tokenizer/word_cache.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <thread>

namespace lorry::tokenizer {
namespace {

// Short words: 128 MB for a machine's cores together, 1 to 8 MB each.
constexpr size_t kAllLines = 1 << 21, kMinLines = 1 << 14, kMaxLines = 1 << 17;
constexpr size_t kMaxCaches = 4;  // vocabularies that a thread remembers

}  // namespace

WordCache& WordCache::of_thread(uint64_t uid) {
  struct Entry {
    uint64_t uid;
    std::unique_ptr<WordCache> cache;
  };
  thread_local std::vector<Entry> caches;
  for (Entry& e : caches) {
    if (e.uid == uid) return *e.cache;
  }
  if (caches.size() == kMaxCaches) caches.erase(caches.begin());
  caches.push_back({uid, std::make_unique<WordCache>()});
  return *caches.back().cache;
}

WordCache::WordCache() : ids_(kSlack) {
  const size_t threads = std::max(1u, std::thread::hardware_concurrency());
  const size_t lines = std::bit_floor(std::clamp(kAllLines / threads, kMinLines, kMaxLines));
  lines_ = BigArray<Line>(lines);
  mask_ = lines - 1;
}

void WordCache::insert(const Key& key, uint64_t hash, std::span<const int32_t> ids) {
  if (ids.size() > kMaxIds) return;
  Line& line = lines_[hash & mask_];
  const Entry none{};
  const bool alone = ids.size() > std::size(none.ids) || line.first.n() > std::size(none.ids);
  if (alone) line.second = none;
  // Where both places are taken, bits that the line does not depend on choose.
  const bool second =
      !alone && line.first.n() > 0 && (line.second.n() == 0 || (hash >> 40 & 1) != 0);
  Entry& entry = second ? line.second : line.first;
  entry.key = {key.a, key.b | uint64_t{ids.size()} << kCountShift};
  // Those of a word that has the line alone go on over the second entry.
  const size_t at = (second ? sizeof(Entry) : 0) + offsetof(Entry, ids);
  std::memcpy(reinterpret_cast<char*>(&line) + at, ids.data(), ids.size_bytes());
}

WordCache::Known WordCache::find_long(std::string_view word, uint64_t hash) const {
  for (size_t s = hash % kSlots; slots_[s].size; s = (s + 1) % kSlots) {
    const Slot& slot = slots_[s];
    if (slot.hash != hash || slot.size != word.size()) continue;
    if (std::memcmp(words_.data() + slot.word, word.data(), word.size()) != 0) continue;
    return {&ids_[slot.ids], slot.n};
  }
  return {};
}

void WordCache::insert_long(std::string_view word, uint64_t hash, std::span<const int32_t> ids) {
  if (ids.size() > UINT8_MAX) return;
  if (used_ >= kSlots / 2) clear_long();
  size_t s = hash % kSlots;
  while (slots_[s].size) s = (s + 1) % kSlots;
  const size_t end = ids_.size() - kSlack;
  slots_[s] = {hash, static_cast<uint32_t>(words_.size()), static_cast<uint32_t>(end),
               static_cast<uint8_t>(word.size()), static_cast<uint8_t>(ids.size())};
  words_ += word;
  ids_.insert(ids_.begin() + static_cast<ptrdiff_t>(end), ids.begin(), ids.end());
  ++used_;
}

void WordCache::clear_long() {
  std::fill(slots_.begin(), slots_.end(), Slot{});
  words_.clear();
  ids_.assign(kSlack, 0);
  used_ = 0;
}

}  // namespace lorry::tokenizer
