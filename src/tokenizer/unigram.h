// SentencePiece's unigram model (Kudo 2018, arXiv:1804.10959): the cut of a word into pieces whose
// scores have the largest sum, as the peer `tokenizers` searches it.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "tokenizer/word_model.h"

namespace lorry::tokenizer {

/// Byte strings as a tree whose nodes lie level by level, the children of one side by side.
class PieceTrie {
 public:
  struct Piece {
    std::string_view text;
    int32_t id;
  };
  /// Sorts `pieces`; of equal texts the last counts.
  explicit PieceTrie(std::vector<Piece> pieces);

  static constexpr uint32_t kNone = UINT32_MAX;
  uint32_t root() const { return 0; }
  /// The node behind `byte`, or kNone.
  uint32_t child(uint32_t node, uint8_t byte) const {
    if (node == 0) return first_[byte];
    const Node& n = nodes_[node];
    for (uint32_t c = n.children; c < n.children + n.count; ++c) {
      if (nodes_[c].label == byte) return c;
    }
    return kNone;
  }
  /// The id of the piece that ends here, or -1.
  int32_t id(uint32_t node) const { return nodes_[node].id; }

 private:
  struct Node {
    uint32_t children = 0;
    uint16_t count = 0;
    uint8_t label = 0;
    int32_t id = -1;
  };
  std::vector<Node> nodes_;
  std::array<uint32_t, 256> first_;
};

class Unigram final : public WordModel {
 public:
  /// `scores` by id; a piece listed twice is encoded as its last id. `unknown` is the id of what no
  /// piece covers; runs of it become one token, or with `byte_fallback` the tokens <0x00>...<0xFF>
  /// if the vocabulary has those needed.
  static Result<std::unique_ptr<Unigram>> create(TokenMap vocab,
                                                 std::vector<RepeatedToken> repeated,
                                                 std::vector<double> scores, int32_t unknown,
                                                 bool byte_fallback);

  using WordModel::encode;
  void encode(std::string_view word, std::vector<Symbol>& symbols) const override;

 private:
  Unigram(TokenMap vocab, std::vector<RepeatedToken> repeated, std::vector<double> scores,
          int32_t unknown, bool byte_fallback);
  struct Best;
  void search(std::string_view word, std::vector<Best>& ends) const;
  void add_token(std::string_view text, std::vector<Symbol>& symbols) const;

  std::vector<double> scores_;
  double unknown_score_ = 0;
  int32_t unknown_;
  std::array<int32_t, 256> byte_ids_{};  // all -1 without byte_fallback
  PieceTrie trie_;
};

}  // namespace lorry::tokenizer
