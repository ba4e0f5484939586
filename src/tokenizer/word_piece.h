// Models that look words up: WordPiece by the longest prefix, WordLevel as a whole.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "tokenizer/word_model.h"

namespace lorry::tokenizer {

/// BERT's: the longest token that begins the word, then the longest that goes on with it. A word of
/// which some part is not in the vocabulary is one unknown token.
class WordPiece final : public WordModel {
 public:
  struct Options {
    std::string unk_token = "[UNK]";
    std::string subword_prefix = "##";
    size_t max_chars = 100;  ///< longer words are unknown
  };
  /// Fails with invalid input if the vocabulary lacks the unknown token.
  static Result<std::unique_ptr<WordPiece>> create(TokenMap vocab, Options options);

  using WordModel::encode;
  void encode(std::string_view word, std::vector<Symbol>& symbols) const override;

 private:
  WordPiece(TokenMap vocab, Options options, int32_t unknown);
  std::string prefix_;
  size_t max_chars_;
  size_t longest_;  // token of the vocabulary, in bytes
  int32_t unknown_;
};

/// A word is a token or unknown.
class WordLevel final : public WordModel {
 public:
  /// Fails with invalid input if the vocabulary lacks the unknown token.
  static Result<std::unique_ptr<WordLevel>> create(TokenMap vocab, const std::string& unk_token);

  using WordModel::encode;
  void encode(std::string_view word, std::vector<Symbol>& symbols) const override;

 private:
  WordLevel(TokenMap vocab, int32_t unknown) : WordModel(std::move(vocab)), unknown_(unknown) {}
  int32_t unknown_;
};

}  // namespace lorry::tokenizer
