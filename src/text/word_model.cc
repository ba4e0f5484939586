#include "text/word_model.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "text/word_cache.h"

namespace lorry::text {

WordModel::WordModel(TokenMap vocab) : vocab_(std::move(vocab)) {
  static std::atomic<uint64_t> next_uid{1};
  uid_ = next_uid++;
}

void WordModel::encode(std::string_view text, std::span<const Regex::Match> words,
                       std::vector<int32_t>& ids) const {
  if (words.empty()) return;
  WordCache& cache = WordCache::of_thread(uid_);
  // A whole line of the cache is copied, whatever it holds.
  const size_t begin = ids.size();
  const size_t bytes = words.back().end - words.front().begin;
  ids.resize(begin + tokens_per_byte_ * bytes + WordCache::kMaxIds);
  int32_t* out = ids.data() + begin;
  // Some words at once, so that the memory can answer for all of them at the same time.
  constexpr size_t kBatch = 16;
  std::array<WordCache::Key, kBatch> keys;
  std::array<uint64_t, kBatch> hashes;
  for (size_t done = 0; done < words.size(); done += kBatch) {
    const auto batch = words.subspan(done, std::min(kBatch, words.size() - done));
    for (size_t i = 0; i < batch.size(); ++i) {
      const size_t at = batch[i].begin;
      const size_t size = std::min(batch[i].end - at, WordCache::kShort);
      keys[i] = WordCache::key_of(text.data() + at, size, text.size() - at);
      hashes[i] = WordCache::hash(keys[i]);
      cache.prefetch(hashes[i]);
    }
    for (size_t i = 0; i < batch.size(); ++i) {
      const std::string_view word = text.substr(batch[i].begin, batch[i].end - batch[i].begin);
      if (word.size() > WordCache::kShort) {
        out = encode_long(word, cache, out);
      } else if (const auto* line = cache.find(keys[i], word.size(), hashes[i])) {
        std::memcpy(out, line->ids, 4 * sizeof(int32_t));
        if (line->n > 4)
          std::memcpy(out + 4, line->ids + 4, sizeof line->ids - 4 * sizeof(int32_t));
        out += line->n;
      } else {
        int32_t* const end = encode_new(word, out);
        if (size_t(end - out) <= WordCache::kMaxIds)
          cache.insert(keys[i], word.size(), hashes[i], {out, end});
        out = end;
      }
    }
  }
  ids.resize(static_cast<size_t>(out - ids.data()));
}

int32_t* WordModel::encode_new(std::string_view word, int32_t* out) const {
  thread_local std::vector<Symbol> symbols;
  symbols.clear();
  encode(word, symbols);
  for (const Symbol& s : symbols) *out++ = s.id;
  return out;
}

int32_t* WordModel::encode_long(std::string_view word, WordCache& cache, int32_t* out) const {
  if (!WordCache::fits(word)) return encode_new(word, out);
  const uint64_t hash = hash_bytes(word.data(), word.size());
  if (const auto known = cache.find_long(word, hash); !known.empty())
    return std::copy(known.begin(), known.end(), out);
  int32_t* const end = encode_new(word, out);
  cache.insert_long(word, hash, {out, end});
  return end;
}

}  // namespace lorry::text
