#include "text/word_model.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "text/word_cache.h"

namespace lorry::text {

/// Some words of a text, each looked at in turn by every step, so that the memory can answer for
/// all of them at the same time.
class WordModel::Block {
 public:
  static constexpr size_t kWords = 128;

  /// Appends the ids of at most kWords words at `out`, and returns the end.
  int32_t* encode(const WordModel& model, WordCache& cache, std::string_view text,
                  std::span<const Regex::Match> words, int32_t* out) {
    text_ = text;
    words_ = words;
    ask(cache);
    find(cache);
    if (n_new_ > 0) model.encode_new({new_.data(), n_new_});
    out = write(model, cache, out);
    remember(cache);
    return out;
  }

 private:
  std::string_view word(size_t i) const {
    return {text_.data() + words_[i].begin, words_[i].end - words_[i].begin};
  }

  void ask(const WordCache& cache) {
    for (size_t i = 0; i < words_.size(); ++i) {
      const size_t at = words_[i].begin;
      const size_t size = std::min(words_[i].end - at, WordCache::kShort);
      keys_[i] = WordCache::key_of(text_.data() + at, size, text_.size() - at);
      hashes_[i] = WordCache::hash(keys_[i]);
      cache.prefetch(hashes_[i]);
    }
  }

  void find(const WordCache& cache) {
    n_new_ = 0;
    for (size_t i = 0; i < words_.size(); ++i) {
      const size_t size = words_[i].end - words_[i].begin;
      lines_[i] = cache.find(keys_[i], size, hashes_[i]);
      if (lines_[i] || size > WordCache::kShort) continue;
      new_[n_new_] = {word(i), new_ids_.data() + n_new_ * kRoom};
      new_at_[n_new_++] = static_cast<uint8_t>(i);
    }
  }

  int32_t* write(const WordModel& model, WordCache& cache, int32_t* out) const {
    const NewWord* fresh = new_.data();
    for (size_t i = 0; i < words_.size(); ++i) {
      if (const auto* line = lines_[i]) {
        // A whole line of the cache is copied, whatever it holds.
        std::memcpy(out, line->ids, 4 * sizeof(int32_t));
        if (line->n > 4) std::memcpy(out + 4, line->ids + 4, sizeof line->ids - 4 * sizeof *out);
        out += line->n;
      } else if (words_[i].end - words_[i].begin > WordCache::kShort) {
        out = model.encode_long(word(i), cache, out);
      } else {
        out = std::copy_n(fresh->ids, fresh->n, out);
        ++fresh;
      }
    }
    return out;
  }

  void remember(WordCache& cache) const {
    for (size_t k = 0; k < n_new_; ++k) {
      if (new_[k].n > WordCache::kMaxIds) continue;
      const size_t i = new_at_[k];
      cache.insert(keys_[i], words_[i].end - words_[i].begin, hashes_[i], {new_[k].ids, new_[k].n});
    }
  }

  static constexpr size_t kRoom = WordCache::kShort * kMaxTokensPerByte;

  std::string_view text_;
  std::span<const Regex::Match> words_;
  std::array<WordCache::Key, kWords> keys_;
  std::array<uint64_t, kWords> hashes_;
  std::array<const WordCache::Line*, kWords> lines_;
  std::array<NewWord, kWords> new_;     // words that the cache does not know
  std::array<uint8_t, kWords> new_at_;  // which of the words they are
  std::array<int32_t, kWords * kRoom> new_ids_;
  size_t n_new_ = 0;
};

WordModel::WordModel(TokenMap vocab) : vocab_(std::move(vocab)) {
  static std::atomic<uint64_t> next_uid{1};
  uid_ = next_uid++;
}

void WordModel::encode(std::string_view text, std::span<const Regex::Match> words,
                       std::vector<int32_t>& ids) const {
  if (words.empty()) return;
  WordCache& cache = WordCache::of_thread(uid_);
  const size_t begin = ids.size();
  const size_t bytes = words.back().end - words.front().begin;
  ids.resize(begin + tokens_per_byte_ * bytes + WordCache::kMaxIds);
  int32_t* out = ids.data() + begin;
  thread_local Block block;
  for (; !words.empty(); words = words.subspan(std::min(Block::kWords, words.size())))
    out = block.encode(*this, cache, text, words.first(std::min(Block::kWords, words.size())), out);
  ids.resize(static_cast<size_t>(out - ids.data()));
}

void WordModel::encode_new(std::span<NewWord> words) const {
  for (NewWord& word : words) encode_alone(word);
}

void WordModel::encode_alone(NewWord& word) const {
  thread_local std::vector<Symbol> symbols;
  symbols.clear();
  encode(word.bytes, symbols);
  word.n = 0;
  for (const Symbol& s : symbols) word.ids[word.n++] = s.id;
}

int32_t* WordModel::encode_long(std::string_view word, WordCache& cache, int32_t* out) const {
  const bool keep = WordCache::fits(word);
  const uint64_t hash = keep ? hash_bytes(word.data(), word.size()) : 0;
  if (const auto known = keep ? cache.find_long(word, hash) : std::span<const int32_t>();
      !known.empty())
    return std::copy(known.begin(), known.end(), out);
  NewWord fresh{word, out};
  encode_alone(fresh);
  if (keep) cache.insert_long(word, hash, {out, fresh.n});
  return out + fresh.n;
}

}  // namespace lorry::text
