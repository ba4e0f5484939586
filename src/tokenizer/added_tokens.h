// Tokens beside the vocabulary, which are found in the text before anything else looks at it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/word_model.h"

namespace lorry::tokenizer {

struct AddedToken {
  std::string content;
  bool single_word = false;  ///< not inside of a word
  bool lstrip = false;       ///< takes white space on its left along
  bool rstrip = false;
  bool normalized = false;  ///< looked for in the normalised text
  bool special = false;

  bool operator==(const AddedToken&) const = default;
};

/// A piece of a text: an added token, or what lies between two of them (id -1).
struct TokenPiece {
  size_t begin, end;
  int32_t id;
};

/// Finds the longest string of a set at each place, from the left.
class StringFinder {
 public:
  void add(std::string_view string, int32_t id);
  bool empty() const { return nodes_.empty(); }
  /// The first match at or behind `from`.
  struct Match {
    size_t begin, end;
    int32_t id;
  };
  std::optional<Match> find(std::string_view text, size_t from) const;

 private:
  struct Node {
    std::map<uint8_t, uint32_t> children;
    int32_t id = -1;
  };
  size_t next_root(std::string_view text, size_t from) const;

  std::vector<Node> nodes_;
  std::array<uint32_t, 256> roots_{};  // node behind a first byte; 0 is none
  std::optional<char> only_root_;      // the first byte of all strings, where it is one
};

/// The added tokens of one tokenizer. Filled first, then immutable.
class AddedTokens {
 public:
  using Normalize = std::function<std::string(std::string_view)>;

  /// Registers a token as the peer's add_tokens does: the id that the content has already, in here
  /// or in the vocabulary, or else the next free one.
  void add(AddedToken token, const WordModel& model, const Normalize& normalize);
  /// After the last add().
  void build(bool split_special_tokens);

  /// The text in pieces that cover it. `normalized` chooses which tokens are looked for.
  void split(std::string_view text, bool normalized, std::vector<TokenPiece>& pieces) const;

  std::optional<int32_t> find(std::string_view content) const;
  /// What decoding takes the token for; nullptr if `id` is no added token.
  const std::string* text_of(int32_t id) const;
  const AddedToken* get(int32_t id) const;
  bool is_special_text(std::string_view text) const;
  const std::map<int32_t, AddedToken>& all() const { return by_id_; }

 private:
  std::map<int32_t, AddedToken> by_id_;
  std::map<int32_t, std::string> normal_forms_;  // where they differ from the content
  std::unordered_map<std::string, int32_t> ids_;
  std::unordered_map<std::string, bool> special_texts_;
  StringFinder raw_, normal_;
  bool split_special_tokens_ = false;
};

}  // namespace lorry::tokenizer
