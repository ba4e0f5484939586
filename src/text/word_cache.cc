#include "text/word_cache.h"

#include <cstring>

namespace lorry::text {
namespace {

constexpr size_t kSlots = 1 << 16;
constexpr size_t kMaxUsed = kSlots / 2;
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

WordCache::WordCache() : slots_(kSlots) {}

bool WordCache::find(std::string_view word, uint64_t hash, std::vector<int32_t>& ids) const {
  for (size_t s = hash & (kSlots - 1); slots_[s].size; s = (s + 1) & (kSlots - 1)) {
    const Slot& slot = slots_[s];
    if (slot.hash != hash || slot.size != word.size()) continue;
    if (std::memcmp(words_.data() + slot.word, word.data(), word.size()) != 0) continue;
    ids.insert(ids.end(), ids_.begin() + slot.ids, ids_.begin() + slot.ids + slot.n);
    return true;
  }
  return false;
}

void WordCache::insert(std::string_view word, uint64_t hash, std::span<const int32_t> ids) {
  if (ids.size() > UINT8_MAX) return;
  if (used_ >= kMaxUsed) clear();
  size_t s = hash & (kSlots - 1);
  while (slots_[s].size) s = (s + 1) & (kSlots - 1);
  slots_[s] = {hash, static_cast<uint32_t>(words_.size()), static_cast<uint32_t>(ids_.size()),
               static_cast<uint8_t>(word.size()), static_cast<uint8_t>(ids.size())};
  words_ += word;
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  ++used_;
}

void WordCache::clear() {
  slots_.assign(kSlots, Slot{});
  words_.clear();
  ids_.clear();
  used_ = 0;
}

}  // namespace lorry::text
