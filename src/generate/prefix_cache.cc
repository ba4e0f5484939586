#include "generate/prefix_cache.h"

#include <algorithm>

namespace lorry::generate {
namespace {

constexpr int64_t kBlock = KvCache::kBlockTokens;

/// One step of a 64-bit hash: multiply to 128 bits, fold.
uint64_t mix(uint64_t hash, uint64_t value) {
  const auto product = static_cast<unsigned __int128>(hash ^ value) * uint64_t{0x9e3779b97f4a7c15};
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace

size_t PrefixCache::KeyHash::operator()(const Key& key) const {
  uint64_t hash = mix(0x243f6a8885a308d3, key.before);
  for (const int32_t id : key.content) hash = mix(hash + 1, static_cast<uint32_t>(id));
  return hash;
}

PrefixCache::PrefixCache(KvCache& cache, bool enabled)
    : cache_(cache), enabled_(enabled), capacity_tokens_(cache.free_tokens()) {
  blocks_.resize(static_cast<size_t>(capacity_tokens_ / kBlock));
  for (uint64_t& root : base_roots_) root = ++serials_;
}

uint64_t PrefixCache::root(const std::shared_ptr<const model::LoraAdapter>& adapter, int variant) {
  if (adapter == nullptr) return base_roots_[static_cast<size_t>(variant)];
  auto found = roots_.find(adapter);
  if (found == roots_.end()) {
    // Blocks of adapters that are gone can't be found any more and will be evicted.
    std::erase_if(roots_, [](const auto& entry) { return entry.first.expired(); });
    found = roots_.emplace(adapter, Roots{serials_ + 1, serials_ + 2}).first;
    serials_ += 2;
  }
  return found->second[static_cast<size_t>(variant)];
}

void PrefixCache::begin(Sequence& sequence, uint64_t root, std::string_view salt,
                        std::span<const int32_t> tokens, int64_t most) {
  sequence.root = sequence.last_known = root;
  if (!enabled_) return;
  std::vector<int32_t> found;
  while ((sequence.known_blocks + 1) * kBlock <= most) {
    const auto known = by_key_.find(next_key(sequence, salt, tokens));
    if (known == by_key_.end()) break;
    found.push_back(known->second);
    add_known(sequence, known->second);
  }
  cache_.attach(sequence, found);
}

void PrefixCache::extend(Sequence& sequence, std::string_view salt,
                         std::span<const int32_t> tokens) {
  if (!enabled_) return;
  while ((sequence.known_blocks + 1) * kBlock <= sequence.length) {
    int32_t& own = sequence.blocks[static_cast<size_t>(sequence.known_blocks)];
    const Key& key = next_key(sequence, salt, tokens);
    const auto known = by_key_.find(key);
    if (known == by_key_.end()) {
      make_known(key, own);
    } else if (known->second != own) {
      cache_.retain(known->second);
      cache_.release(own);
      own = known->second;
    }
    add_known(sequence, own);
  }
}

bool PrefixCache::reserve(Sequence& sequence, int64_t tokens) {
  const int64_t missing =
      KvCache::blocks_for(tokens) - static_cast<int64_t>(sequence.blocks.size());
  if (missing * kBlock > free_tokens()) return false;
  while (missing * kBlock > cache_.free_tokens()) evict();
  return cache_.reserve(sequence, tokens);
}

void PrefixCache::release(Sequence& sequence) {
  const std::vector<int32_t> blocks = sequence.blocks;
  const int64_t known = sequence.known_blocks;
  cache_.release(sequence);
  sequence = {};
  // From the last to the first: none is evicted before those after it, which need it to be found.
  for (int64_t i = known; i-- > 0;) {
    const int32_t block = blocks[static_cast<size_t>(i)];
    if (!cache_.is_shared(block)) set_idle(block);
  }
}

void PrefixCache::trim(Sequence& sequence, int64_t tokens) {
  if (static_cast<int64_t>(sequence.blocks.size()) <= KvCache::blocks_for(tokens)) return;
  const int64_t length = sequence.length;
  cache_.truncate(sequence, tokens);
  sequence.length = length;
}

const PrefixCache::Key& PrefixCache::next_key(const Sequence& sequence, std::string_view salt,
                                              std::span<const int32_t> tokens) {
  const auto ids = tokens.subspan(static_cast<size_t>(sequence.known_blocks * kBlock), kBlock);
  key_.before = sequence.last_known;
  key_.content.assign(ids.begin(), ids.end());
  if (sequence.known_blocks == 0) {
    key_.content.insert(key_.content.end(), salt.begin(), salt.end());
  }
  return key_;
}

void PrefixCache::make_known(const Key& key, int32_t block) {
  const auto entry = by_key_.emplace(key, block).first;
  blocks_[static_cast<size_t>(block)] = {++serials_, &entry->first, false, {}};
  cache_.retain(block);
}

void PrefixCache::add_known(Sequence& sequence, int32_t block) {
  set_held(block);
  sequence.last_known = blocks_[static_cast<size_t>(block)].serial;
  ++sequence.known_blocks;
}

void PrefixCache::set_idle(int32_t number) {
  Block& block = blocks_[static_cast<size_t>(number)];
  block.idle = true;
  block.place = idle_.insert(idle_.end(), number);
}

void PrefixCache::set_held(int32_t number) {
  Block& block = blocks_[static_cast<size_t>(number)];
  if (!block.idle) return;
  block.idle = false;
  idle_.erase(block.place);
}

void PrefixCache::evict() {
  const int32_t number = idle_.front();
  idle_.pop_front();
  Block& block = blocks_[static_cast<size_t>(number)];
  by_key_.erase(by_key_.find(*block.key));
  block = {};
  cache_.release(number);
}

}  // namespace lorry::generate
