// What makes ids of one word: the `model` of tokenizer.json.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/token_map.h"

namespace lorry::text {

/// A symbol of a word: a token and how many bytes of the word it stands for.
struct Symbol {
  int32_t id;
  uint32_t size;
};

/// A vocabulary and a way to cut a word into its tokens. Immutable after loading, hence
/// thread-safe; each thread keeps a bounded cache of words.
class WordModel {
 public:
  virtual ~WordModel() = default;

  /// Appends the ids of one word.
  virtual void encode(std::string_view word, std::vector<int32_t>& ids) const;
  /// The same with the bytes that each token stands for; not cached.
  virtual void encode(std::string_view word, std::vector<Symbol>& symbols) const = 0;

  const TokenMap& vocab() const { return vocab_; }

 protected:
  explicit WordModel(TokenMap vocab);

 private:
  TokenMap vocab_;
  uint64_t uid_;  // names this vocabulary's words in a thread's cache
};

}  // namespace lorry::text
