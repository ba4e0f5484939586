#include "stages/token_counts.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace lorry::stages {
namespace {

chat::EncodedExample of_length(int64_t length) {
  chat::EncodedExample out;
  out.input_ids.resize(size_t(length));
  out.assistant_masks.assign(size_t(length), 1);
  return out;
}

TEST(LengthHistogram, QuantilesAreWithinAThirtySecond) {
  LengthHistogram lengths;
  for (int64_t i = 1; i <= 10'000; ++i) lengths.count(i);
  EXPECT_EQ(lengths.rows(), 10'000);
  for (const double q : {0.001, 0.01, 0.5, 0.9, 0.99, 1.0}) {
    const auto length = double(lengths.quantile(q));
    EXPECT_GE(length, q * 10'000);
    EXPECT_LE(length, q * 10'000 * 33 / 32 + 1);
  }
  EXPECT_LT(lengths.steps().size(), 400u);
}

TEST(LengthHistogram, ShortLengthsAreExact) {
  LengthHistogram lengths;
  for (int64_t i = 0; i < 64; ++i) lengths.count(i);
  EXPECT_EQ(lengths.steps().size(), 64u);
}

TEST(TokenCounts, SumsDoNotDependOnTheOrderAndComeBackFromJson) {
  TokenCounts first, second, all;
  for (const int64_t length : {3, 70, 5000}) first.count(of_length(length));
  for (const int64_t length : {900, 70}) second.count(of_length(length));
  TokenCounts other = second;
  other.add(first);
  all.add(first);
  all.add(TokenCounts::from_json(second.to_json()));
  EXPECT_EQ(dump_json(all.to_json()), dump_json(other.to_json()));
  const Json json = all.to_json();
  EXPECT_EQ(json["rows"], 5);
  EXPECT_EQ(json["length_quantiles"]["p50"], 71);
  EXPECT_EQ(json["length_quantiles"]["p99"], 5000) << "the longest row bounds the last step";
  EXPECT_EQ(dump_json(TokenCounts::from_json(json).to_json()), dump_json(json));
}

TEST(TokenCounts, AnInfoJsonWithoutLengthsIsStillRead) {
  const auto old = TokenCounts::from_json({{"rows", 7}, {"tokens", 70}, {"longest", 20}});
  EXPECT_EQ(old.rows, 7);
  EXPECT_FALSE(old.to_json().contains("lengths"));
  EXPECT_EQ(describe_lengths(old), "");
}

TEST(TokenCounts, WhatTrainingWillCutIsSaidBeforehand) {
  TokenCounts counts;
  for (const int64_t length : {20, 600, 1100}) counts.count(of_length(length));
  EXPECT_EQ(describe_cut(counts, 1100), "");
  EXPECT_EQ(describe_cut(counts, 1024).substr(0, 73),
            "1 of 3 rows are longer than --max-length 1,024 (the longest has 1,100 tok");
  EXPECT_EQ(describe_cut(counts, 100).substr(0, 14), "about 2 of 3 r");
}

TEST(TokenCounts, PeopleSeeQuantilesAndABarForEachPowerOfTwo) {
  TokenCounts counts;
  for (const int64_t length : {20, 20, 20, 100}) counts.count(of_length(length));
  EXPECT_EQ(describe_lengths(counts),
            "tokens a row: 20 at the median, 90% at most 100, 99% at most 100, the longest 100; "
            "100.0% of the tokens are trained on\n"
            "  below        32            3 ########################################\n"
            "  below        64            0 \n"
            "  below       128            1 ##############");
}

}  // namespace
}  // namespace lorry::stages
