#include "tokenizer/unigram.h"

#include <algorithm>
#include <cstdio>

#include "tokenizer/unicode.h"

namespace lorry::tokenizer {
namespace {

constexpr double kUnknownPenalty = 10;  // below the worst piece, as in SentencePiece

std::vector<PieceTrie::Piece> pieces_of(const TokenMap& vocab) {
  std::vector<PieceTrie::Piece> out;
  out.reserve(vocab.size());
  vocab.for_each([&](std::string_view text, int32_t id) {
    if (!text.empty()) out.push_back({text, id});
  });
  return out;
}

}  // namespace

PieceTrie::PieceTrie(std::vector<Piece> pieces) {
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.text < b.text; });
  struct Range {
    size_t begin, end, depth;
  };
  std::vector<Range> ranges = {{0, pieces.size(), 0}};  // of node i; grows with the nodes
  nodes_.emplace_back();
  for (size_t node = 0; node < ranges.size(); ++node) {
    auto [begin, end, depth] = ranges[node];
    while (begin < end && pieces[begin].text.size() == depth) nodes_[node].id = pieces[begin++].id;
    nodes_[node].children = static_cast<uint32_t>(nodes_.size());
    while (begin < end) {
      const char label = pieces[begin].text[depth];
      size_t last = begin;
      while (last < end && pieces[last].text[depth] == label) ++last;
      nodes_.push_back({.label = static_cast<uint8_t>(label)});
      ranges.push_back({begin, last, depth + 1});
      ++nodes_[node].count;
      begin = last;
    }
  }
  first_.fill(kNone);
  const Node& root = nodes_[0];
  for (uint32_t c = root.children; c < root.children + root.count; ++c) first_[nodes_[c].label] = c;
}

Result<std::unique_ptr<Unigram>> Unigram::create(TokenMap vocab,
                                                 std::vector<RepeatedToken> repeated,
                                                 std::vector<double> scores, int32_t unknown,
                                                 bool byte_fallback) {
  if (unknown < 0 || static_cast<size_t>(unknown) >= scores.size()) {
    return invalid_input("tokenizer.json: model: unk_id " + std::to_string(unknown) +
                         " is not in the vocabulary");
  }
  return std::unique_ptr<Unigram>(new Unigram(std::move(vocab), std::move(repeated),
                                              std::move(scores), unknown, byte_fallback));
}

Unigram::Unigram(TokenMap vocabulary, std::vector<RepeatedToken> repeated,
                 std::vector<double> scores, int32_t unknown, bool byte_fallback)
    : WordModel(std::move(vocabulary)),
      scores_(std::move(scores)),
      unknown_(unknown),
      trie_(pieces_of(vocab())) {
  repeated_ = std::move(repeated);
  unknown_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty;
  byte_ids_.fill(-1);
  for (int b = 0; byte_fallback && b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    byte_ids_[b] = vocab().find(name).value_or(-1);
  }
}

/// The best way to a place in the word: the last token on it.
struct Unigram::Best {
  double score = 0;
  uint32_t begin = UINT32_MAX;  // none leads here yet
  int32_t id = 0;

  void offer(double other, uint32_t from, int32_t token) {
    if (begin == UINT32_MAX || other > score) *this = {other, from, token};
  }
};

void Unigram::search(std::string_view word, std::vector<Best>& ends) const {
  ends.assign(word.size() + 1, {});
  for (uint32_t begin = 0; begin < word.size();) {
    const double score = ends[begin].score;
    const uint32_t one = utf8_size(word[begin]);
    bool has_single = false;
    uint32_t node = trie_.root();
    for (uint32_t at = begin; at < word.size();) {
      node = trie_.child(node, static_cast<uint8_t>(word[at++]));
      if (node == PieceTrie::kNone) break;
      const int32_t id = trie_.id(node);
      if (id < 0) continue;
      ends[at].offer(score + scores_[static_cast<size_t>(id)], begin, id);
      has_single |= at - begin == one;
    }
    if (!has_single) ends[begin + one].offer(score + unknown_score_, begin, unknown_);
    begin += one;
  }
}

void Unigram::encode(std::string_view word, std::vector<Symbol>& symbols) const {
  thread_local std::vector<Best> ends;
  thread_local std::vector<std::pair<uint32_t, uint32_t>> tokens;  // last one first
  search(word, ends);
  tokens.clear();
  bool in_unknown = false;
  for (auto end = static_cast<uint32_t>(word.size()); end > 0;) {
    const Best& best = ends[end];
    const bool is_unknown = best.id == unknown_;
    if (is_unknown && in_unknown) {
      tokens.back().first = best.begin;
    } else {
      tokens.emplace_back(best.begin, end);
    }
    in_unknown = is_unknown;
    end = best.begin;
  }
  for (auto t = tokens.rbegin(); t != tokens.rend(); ++t) {
    add_token(word.substr(t->first, t->second - t->first), symbols);
  }
}

void Unigram::add_token(std::string_view text, std::vector<Symbol>& symbols) const {
  const auto size = static_cast<uint32_t>(text.size());
  if (const auto id = vocab().find(text)) {
    symbols.push_back({*id, size});
    return;
  }
  const auto byte_id = [&](char b) { return byte_ids_[static_cast<uint8_t>(b)]; };
  if (std::all_of(text.begin(), text.end(), [&](char b) { return byte_id(b) >= 0; })) {
    for (const char b : text) symbols.push_back({byte_id(b), 1});
  } else {
    symbols.push_back({unknown_, size});
  }
}

}  // namespace lorry::tokenizer
