#include "stages/length_limit.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/utf8.h"

namespace lorry::stages {
namespace {

using chat::EncodedExample;

/// Where the text of token `token` begins, of all tokens that follow each other.
size_t text_start(const EncodedExample& example, size_t token) {
  if (token == 0) return 0;
  if (token >= example.offsets.size()) return example.text.size();
  return utf8_start(example.text, example.offsets[token].first);
}

EncodedExample piece_of(const EncodedExample& example, size_t begin, size_t end) {
  const auto slice = [&](const auto& from) {
    using Values = std::decay_t<decltype(from)>;
    return Values(from.begin() + int64_t(begin), from.begin() + int64_t(end));
  };
  EncodedExample piece;
  piece.input_ids = slice(example.input_ids);
  piece.assistant_masks = slice(example.assistant_masks);
  piece.no_target = example.no_target;
  piece.trains_end = example.trains_end;
  if (example.offsets.empty()) return piece;
  const size_t from = text_start(example, begin);
  piece.text = example.text.substr(from, text_start(example, end) - from);
  piece.offsets = slice(example.offsets);
  for (auto& [first, last] : piece.offsets) {
    first -= std::min<uint32_t>(first, uint32_t(from));
    last -= std::min<uint32_t>(last, uint32_t(from));
  }
  return piece;
}

std::vector<EncodedExample> split(const EncodedExample& example, size_t length,
                                  ExcessCounts& counts) {
  const size_t tokens = example.input_ids.size();
  std::vector<EncodedExample> pieces;
  size_t kept = 0;
  for (size_t begin = 0; begin < tokens; begin += length) {
    auto piece = piece_of(example, begin, std::min(begin + length, tokens));
    const bool last_chance = begin + length >= tokens && pieces.empty();
    if (!teaches(piece)) {
      ++counts.pieces_left_out;
      if (!last_chance) continue;
      piece = piece_of(example, 0, length);  // nothing teaches: as a row that does not
      --counts.pieces_left_out;
    }
    kept += piece.input_ids.size();
    pieces.push_back(std::move(piece));
  }
  counts.pieces += int64_t(pieces.size());
  counts.tokens_left_out += int64_t(tokens - kept);
  return pieces;
}

}  // namespace

const char* name_of(Excess excess) {
  return excess == Excess::kDrop ? "drop" : excess == Excess::kSplit ? "split" : "truncate";
}

Excess excess_from(const std::string& name) {
  return name == "drop" ? Excess::kDrop : name == "split" ? Excess::kSplit : Excess::kTruncate;
}

void ExcessCounts::add(const ExcessCounts& other) {
  rows += other.rows;
  tokens_left_out += other.tokens_left_out;
  pieces += other.pieces;
  pieces_left_out += other.pieces_left_out;
}

Json ExcessCounts::to_json() const {
  return {{"rows", rows},
          {"tokens_left_out", tokens_left_out},
          {"pieces", pieces},
          {"pieces_left_out", pieces_left_out}};
}

ExcessCounts ExcessCounts::from_json(const Json& json) {
  const auto number = [&](const char* name) { return json.value(name, int64_t{0}); };
  return {number("rows"), number("tokens_left_out"), number("pieces"), number("pieces_left_out")};
}

bool teaches(const EncodedExample& example) {
  const auto& mask = example.assistant_masks;
  return mask.size() > 1 && std::find(mask.begin() + 1, mask.end(), 1) != mask.end();
}

std::vector<EncodedExample> fit(EncodedExample example, const LengthLimit& limit,
                                ExcessCounts& counts) {
  std::vector<EncodedExample> out;
  const auto tokens = int64_t(example.input_ids.size());
  if (!limit.is_set() || tokens <= limit.max_length) {
    out.push_back(std::move(example));
    return out;
  }
  ++counts.rows;
  if (limit.excess == Excess::kDrop) {
    counts.tokens_left_out += tokens;
    return out;
  }
  if (limit.excess == Excess::kSplit) return split(example, size_t(limit.max_length), counts);
  counts.tokens_left_out += tokens - limit.max_length;
  out.push_back(piece_of(example, 0, size_t(limit.max_length)));
  return out;
}

}  // namespace lorry::stages
