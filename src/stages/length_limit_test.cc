#include "stages/length_limit.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace lorry::stages {
namespace {

using Ids = std::vector<int32_t>;

/// Tokens 0, 1, ..., one letter each.
chat::EncodedExample example(std::vector<int8_t> mask) {
  chat::EncodedExample out;
  for (size_t i = 0; i < mask.size(); ++i) {
    out.input_ids.push_back(int32_t(i));
    out.offsets.emplace_back(i, i + 1);
    out.text += char('a' + i);
  }
  out.assistant_masks = std::move(mask);
  return out;
}

TEST(LengthLimit, WhatFitsStaysWhole) {
  ExcessCounts counts;
  for (const LengthLimit& limit : {LengthLimit{}, LengthLimit{4, Excess::kDrop}}) {
    const auto rows = fit(example({0, 0, 1, 1}), limit, counts);
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0].input_ids, (Ids{0, 1, 2, 3}));
  }
  EXPECT_EQ(counts.rows, 0);
}

TEST(LengthLimit, WhatIsTooLongIsCutAtTheEnd) {
  ExcessCounts counts;
  const auto rows = fit(example({0, 0, 1, 1}), {3, Excess::kTruncate}, counts);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].input_ids, (Ids{0, 1, 2}));
  EXPECT_EQ(rows[0].assistant_masks, (std::vector<int8_t>{0, 0, 1}));
  EXPECT_EQ(rows[0].text, "abc");
  EXPECT_EQ(counts.rows, 1);
  EXPECT_EQ(counts.tokens_left_out, 1);
}

TEST(LengthLimit, OrLeftOut) {
  ExcessCounts counts;
  EXPECT_TRUE(fit(example({0, 0, 1, 1}), {3, Excess::kDrop}, counts).empty());
  EXPECT_EQ(counts.rows, 1);
  EXPECT_EQ(counts.tokens_left_out, 4);
}

TEST(LengthLimit, OrSplitInOrderWithoutPiecesThatTeachNothing) {
  ExcessCounts counts;
  // Of the second piece only the first token is trained on, which nothing comes before.
  const auto rows = fit(example({0, 1, 1, 1, 0, 0, 0, 1, 1, 1}), {3, Excess::kSplit}, counts);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].input_ids, (Ids{0, 1, 2}));
  EXPECT_EQ(rows[1].input_ids, (Ids{6, 7, 8}));
  EXPECT_EQ(rows[1].text, "ghi");
  EXPECT_EQ(rows[1].offsets.front(), (std::pair<uint32_t, uint32_t>(0, 1)));
  EXPECT_EQ(counts.pieces, 2);
  EXPECT_EQ(counts.pieces_left_out, 2);
  EXPECT_EQ(counts.tokens_left_out, 4);
}

TEST(LengthLimit, ARowThatTeachesNothingKeepsItsFirstPiece) {
  ExcessCounts counts;
  const auto rows = fit(example({0, 0, 0, 0, 0, 0, 0}), {3, Excess::kSplit}, counts);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].input_ids, (Ids{0, 1, 2}));
  EXPECT_EQ(counts.pieces, 1);
  EXPECT_EQ(counts.pieces_left_out, 2);
  EXPECT_EQ(counts.tokens_left_out, 4);
}

TEST(LengthLimit, TextsOfPiecesMakeTheTextAndCutNoCharacter) {
  chat::EncodedExample bytes;
  bytes.text =
      "a\xE4\xB8\x96"
      "bc";
  for (uint32_t i = 0; i < 6; ++i) {
    bytes.input_ids.push_back(int32_t(i));
    bytes.offsets.emplace_back(i, i + 1);
    bytes.assistant_masks.push_back(1);
  }
  ExcessCounts counts;
  std::string joined;
  for (const auto& piece : fit(bytes, {2, Excess::kSplit}, counts)) joined += piece.text + "|";
  EXPECT_EQ(joined, "a|\xE4\xB8\x96|bc|");
}

TEST(LengthLimit, CountsComeBackFromJson) {
  const ExcessCounts counts{1, 2, 3, 4};
  const auto back = ExcessCounts::from_json(counts.to_json());
  EXPECT_EQ(back.to_json(), counts.to_json());
  EXPECT_EQ(excess_from(name_of(Excess::kSplit)), Excess::kSplit);
  EXPECT_EQ(excess_from(name_of(Excess::kDrop)), Excess::kDrop);
}

}  // namespace
}  // namespace lorry::stages
