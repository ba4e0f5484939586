// What makes ids of one word: the `model` of tokenizer.json.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "tokenizer/regex.h"
#include "tokenizer/token_map.h"

namespace lorry::tokenizer {

class WordCache;

/// A symbol of a word: a token and how many bytes of the word it stands for.
struct Symbol {
  int32_t id;
  uint32_t size;
};

/// A word to encode, and where its ids go.
struct NewWord {
  std::string_view bytes;
  int32_t* ids;    ///< room for tokens_per_byte ids a byte
  uint32_t n = 0;  ///< how many ids it became
};

/// A vocabulary and a way to cut a word into its tokens. Immutable after loading, hence
/// thread-safe; each thread keeps a bounded cache of words.
class WordModel {
 public:
  virtual ~WordModel() = default;

  /// Appends the ids of the words of `text`, which come in order.
  void encode(std::string_view text, std::span<const Regex::Match> words,
              std::vector<int32_t>& ids) const;
  /// Cuts the words of `text` where no token goes on, if that can be told: shorter words are found
  /// in the cache.
  virtual void cut(std::string_view text, std::vector<Regex::Match>& words) const {}

  /// Appends the tokens of one word, each of which stands for a byte or more; not cached.
  virtual void encode(std::string_view word, std::vector<Symbol>& symbols) const = 0;

  const TokenMap& vocab() const { return vocab_; }

  /// A further id of a token, which only decoding meets: `vocab()` has the last.
  struct RepeatedToken {
    int32_t id;
    std::string token;
  };
  std::span<const RepeatedToken> repeated() const { return repeated_; }

  /// The ids that the vocabulary takes; the first added token that is not in it gets this one.
  size_t vocab_size() const { return vocab_.size() + repeated_.size(); }

  /// How many bytes of a word each id stands for, where that does not depend on the word; else
  /// empty.
  std::span<const uint32_t> token_sizes() const { return token_sizes_; }

 protected:
  explicit WordModel(TokenMap vocab);

  /// Encodes words that no cache knows; `n` of each is 0.
  virtual void encode_new(std::span<NewWord> words) const;
  void encode_alone(NewWord& word) const;

  static constexpr size_t kMaxTokensPerByte = 2;
  std::vector<uint32_t> token_sizes_;
  std::vector<RepeatedToken> repeated_;
  size_t tokens_per_byte_ = 1;  ///< that a word can become at most

 private:
  class Block;

  TokenMap vocab_;
  uint64_t uid_;  // names this vocabulary's words in a thread's cache
};

}  // namespace lorry::tokenizer
