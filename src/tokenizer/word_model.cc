#include "tokenizer/word_model.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>

#include "tokenizer/word_cache.h"

namespace lorry::tokenizer {

namespace {

/// Bytes of a text, above which the memory that it takes is not kept for the next.
constexpr size_t kLongText = size_t{1} << 20;

}  // namespace

/// Some words of a text, each looked at in turn by every step, so that the memory can answer for
/// all of them at the same time.
class WordModel::Block {
 public:
  static constexpr size_t kWords = 128;

  /// Appends the ids of at most kWords words.
  void encode(const WordModel& model, WordCache& cache, std::string_view text,
              std::span<const Regex::Match> words, std::vector<int32_t>& ids) {
    text_ = text;
    words_ = words;
    ask(cache);
    find(cache, model.tokens_per_byte_);
    if (n_new_ > 0) model.encode_new({new_.data(), n_new_});
    write(ids);
    remember(cache);
  }

 private:
  static constexpr size_t kShort = WordCache::kShort;

  using Known = WordCache::Known;

  size_t size(size_t i) const { return words_[i].end - words_[i].begin; }
  std::string_view word(size_t i) const { return {text_.data() + words_[i].begin, size(i)}; }

  void ask(const WordCache& cache) {
    for (size_t i = 0; i < words_.size(); ++i) {
      if (size(i) > kShort) {
        ask_long(cache, i);
        continue;
      }
      const size_t at = words_[i].begin;
      keys_[i] = WordCache::key_of(text_.data() + at, size(i), text_.size() - at);
      hashes_[i] = WordCache::hash(keys_[i]);
      cache.prefetch(hashes_[i]);
    }
  }

  void ask_long(const WordCache& cache, size_t i) {
    if (!WordCache::fits(word(i))) return;
    hashes_[i] = hash_bytes(word(i).data(), size(i));
    cache.prefetch_long(hashes_[i]);
  }

  void find(const WordCache& cache, size_t tokens_per_byte) {
    n_new_ = 0;
    size_t room = 0;
    for (size_t i = 0; i < words_.size(); ++i) {
      known_[i] = look_up(cache, i);
      if (known_[i].ids) continue;
      // The places of ids are known when all the room is.
      new_[n_new_] = {word(i), nullptr};
      new_at_[n_new_++] = static_cast<uint8_t>(i);
      room += size(i) * tokens_per_byte;
    }
    if (n_new_ == 0) return;
    if (new_ids_.size() < room + WordCache::kSlack) new_ids_.resize(room + WordCache::kSlack);
    int32_t* ids = new_ids_.data();
    for (NewWord& fresh : std::span(new_.data(), n_new_))
      ids = (fresh.ids = ids) + fresh.bytes.size() * tokens_per_byte;
  }

  Known look_up(const WordCache& cache, size_t i) const {
    if (size(i) <= kShort) return cache.find(keys_[i], hashes_[i]);
    return WordCache::fits(word(i)) ? cache.find_long(word(i), hashes_[i]) : Known{};
  }

  void write(std::vector<int32_t>& ids) {
    for (size_t k = 0; k < n_new_; ++k) known_[new_at_[k]] = {new_[k].ids, new_[k].n};
    const std::span known(known_.data(), words_.size());
    size_t total = WordCache::kSlack;
    for (const Known& word : known) total += word.n;
    if (out_.size() < total) out_.resize(total);
    int32_t* out = out_.data();
    for (const Known& word : known) {
      // Four are copied whatever there are: most words have no more.
      static_assert(WordCache::kSlack == 4);
      std::memcpy(out, word.ids, 4 * sizeof(int32_t));
      if (word.n > 4) std::memcpy(out + 4, word.ids + 4, (word.n - 4) * sizeof(int32_t));
      out += word.n;
    }
    ids.insert(ids.end(), out_.data(), out);
  }

  void remember(WordCache& cache) const {
    for (size_t k = 0; k < n_new_; ++k) {
      const size_t i = new_at_[k];
      const std::span<const int32_t> ids(new_[k].ids, new_[k].n);
      if (size(i) > kShort) {
        if (WordCache::fits(word(i))) cache.insert_long(word(i), hashes_[i], ids);
      } else {
        cache.insert(keys_[i], hashes_[i], ids);
      }
    }
  }

  std::string_view text_;
  std::span<const Regex::Match> words_;
  std::array<WordCache::Key, kWords> keys_;  // of short words
  std::array<uint64_t, kWords> hashes_;
  std::array<Known, kWords> known_;
  std::array<NewWord, kWords> new_;     // words that the cache does not know
  std::array<uint8_t, kWords> new_at_;  // which of the words they are
  std::vector<int32_t> new_ids_, out_;
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
  const size_t bytes = words.back().end - words.front().begin;
  if (ids.empty()) ids.reserve(bytes / 8 * 3);
  // On the heap once a thread; a text with a huge word takes a block of its own.
  thread_local const auto kept = std::make_unique<Block>();
  const auto own = bytes > kLongText ? std::make_unique<Block>() : nullptr;
  Block& block = own ? *own : *kept;
  for (; !words.empty(); words = words.subspan(std::min(Block::kWords, words.size())))
    block.encode(*this, cache, text, words.first(std::min(Block::kWords, words.size())), ids);
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

}  // namespace lorry::tokenizer
