#include "tokenizer/word_piece.h"

#include <algorithm>

#include "tokenizer/unicode.h"

namespace lorry::tokenizer {
namespace {

Result<int32_t> id_of_unknown(const TokenMap& vocab, const std::string& token) {
  if (const auto id = vocab.find(token)) return *id;
  return invalid_input("tokenizer.json: model: the unk_token '" + token +
                       "' is not in the vocabulary");
}

size_t longest_of(const TokenMap& vocab) {
  size_t longest = 0;
  vocab.for_each([&](std::string_view t, int32_t) { longest = std::max(longest, t.size()); });
  return longest;
}

size_t count_chars(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return !is_utf8_continuation(c); }));
}

}  // namespace

Result<std::unique_ptr<WordPiece>> WordPiece::create(TokenMap vocab, Options options) {
  LORRY_ASSIGN(const int32_t unknown, id_of_unknown(vocab, options.unk_token));
  return std::unique_ptr<WordPiece>(new WordPiece(std::move(vocab), std::move(options), unknown));
}

WordPiece::WordPiece(TokenMap vocabulary, Options options, int32_t unknown)
    : WordModel(std::move(vocabulary)),
      prefix_(std::move(options.subword_prefix)),
      max_chars_(options.max_chars),
      longest_(longest_of(vocab())),
      unknown_(unknown) {}

void WordPiece::encode(std::string_view word, std::vector<Symbol>& symbols) const {
  const size_t before = symbols.size();
  const auto give_up = [&] {
    symbols.resize(before);
    symbols.push_back({unknown_, static_cast<uint32_t>(word.size())});
  };
  if (word.size() > max_chars_ && count_chars(word) > max_chars_) return give_up();
  std::string piece;
  for (size_t begin = 0; begin < word.size();) {
    piece = begin == 0 ? "" : prefix_;
    const size_t prefix = piece.size();
    piece += word.substr(begin, longest_);
    while (begin + piece.size() - prefix < word.size() &&
           is_utf8_continuation(word[begin + piece.size() - prefix])) {
      piece.pop_back();
    }
    std::optional<int32_t> id;
    while (piece.size() > prefix && !(id = vocab().find(piece))) {
      while (is_utf8_continuation(piece.back())) piece.pop_back();
      piece.pop_back();
    }
    if (!id) return give_up();
    const size_t size = piece.size() - prefix;
    symbols.push_back({*id, static_cast<uint32_t>(size)});
    begin += size;
  }
}

Result<std::unique_ptr<WordLevel>> WordLevel::create(TokenMap vocab, const std::string& unk_token) {
  LORRY_ASSIGN(const int32_t unknown, id_of_unknown(vocab, unk_token));
  return std::unique_ptr<WordLevel>(new WordLevel(std::move(vocab), unknown));
}

void WordLevel::encode(std::string_view word, std::vector<Symbol>& symbols) const {
  symbols.push_back({vocab().find(word).value_or(unknown_), static_cast<uint32_t>(word.size())});
}

}  // namespace lorry::tokenizer
