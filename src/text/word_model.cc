#include "text/word_model.h"

#include <atomic>

#include "text/word_cache.h"

namespace lorry::text {

WordModel::WordModel(TokenMap vocab) : vocab_(std::move(vocab)) {
  static std::atomic<uint64_t> next_uid{1};
  uid_ = next_uid++;
}

void WordModel::encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (word.empty()) return;
  WordCache* cache = WordCache::fits(word) ? &WordCache::of_thread(uid_) : nullptr;
  uint64_t hash = 0;
  if (cache) {
    hash = hash_bytes(word.data(), word.size());
    if (cache->find(word, hash, ids)) return;
  }
  thread_local std::vector<Symbol> symbols;
  symbols.clear();
  encode(word, symbols);
  const size_t begin = ids.size();
  for (const Symbol& s : symbols) ids.push_back(s.id);
  if (cache) cache->insert(word, hash, {ids.data() + begin, ids.size() - begin});
}

}  // namespace lorry::text
