#include "generate/prompt_lookup.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace lorry::generate {
namespace {

using Tokens = std::vector<int32_t>;

TEST(PromptLookup, DraftsWhatFollowedTheLastTokensBefore) {
  const SpeculationOptions options{3, 3, 2};
  EXPECT_EQ(look_up(Tokens{1, 2, 3, 4, 5, 9, 2, 3}, options), (Tokens{4, 5, 9}));
  EXPECT_EQ(look_up(Tokens{1, 2, 3, 4, 5, 9, 8, 3}, options), Tokens{});  // one token is too few
  EXPECT_EQ(look_up(Tokens{1, 2}, options), Tokens{});
  EXPECT_EQ(look_up(Tokens{}, options), Tokens{});
}

TEST(PromptLookup, PrefersTheLongestMatchAndOfThoseTheLatest) {
  const SpeculationOptions options{1, 3, 1};
  EXPECT_EQ(look_up(Tokens{7, 8, 9, 40, 1, 9, 50, 7, 8, 9}, options), Tokens{40});
  EXPECT_EQ(look_up(Tokens{8, 9, 40, 8, 9, 50, 8, 9}, options), Tokens{50});
}

TEST(PromptLookup, ADraftThatReachesTheEndGoesOnWithItself) {
  EXPECT_EQ(look_up(Tokens{1, 2, 1, 2, 1, 2}, {5, 4, 2}), (Tokens{1, 2, 1, 2, 1}));
  EXPECT_EQ(look_up(Tokens{6, 6, 6}, {4, 2, 1}), (Tokens{6, 6, 6, 6}));
}

TEST(PromptLookup, FindsItInALongText) {
  Tokens tokens(10000);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
  for (const int32_t place : {3, 63, 64, 65, 5000, 9990}) {
    Tokens text = tokens;
    for (int32_t i = place - 2; i <= place; ++i) text.push_back(i);
    EXPECT_EQ(look_up(text, {2, 3, 3}), (Tokens{place + 1, place + 2})) << place;
  }
}

/// After steps of 1 to 9 rows that take `base` + `row` * rows.
DraftPolicy learnt(double base, double row) {
  DraftPolicy policy;
  for (int i = 0; i < 200; ++i) policy.observe(1 + i % 9, base + row * (1 + i % 9));
  return policy;
}

TEST(DraftPolicy, VerifiesWhatIsLikelyWhereRowsCostLittle) {
  const DraftPolicy policy = learnt(1, 0.02);
  const DraftPolicy::Candidate likely{0.9, 4}, unlikely{0.01, 4}, none{0.9, 0};
  const DraftPolicy::Candidate all[] = {likely, unlikely, none};
  EXPECT_EQ(policy.choose(all, 100), (std::vector<int64_t>{4, 0, 0}));
  EXPECT_EQ(policy.choose(all, 3), (std::vector<int64_t>{3, 0, 0}));
}

TEST(DraftPolicy, VerifiesNothingWhereRowsCostAsMuchAsSteps) {
  const DraftPolicy policy = learnt(0.01, 1);
  const DraftPolicy::Candidate likely[] = {{0.9, 4}};
  EXPECT_EQ(policy.choose(likely, 100), std::vector<int64_t>{0});
}

TEST(DraftPolicy, VerifiesLessTheMoreSequencesThereAre) {
  const DraftPolicy policy = learnt(1, 0.1);
  const auto chosen_of = [&](size_t sequences) {
    return policy.choose(std::vector<DraftPolicy::Candidate>(sequences, {0.6, 4}), 1000)[0];
  };
  EXPECT_EQ(chosen_of(1), 3);
  EXPECT_EQ(chosen_of(8), 1);
  EXPECT_EQ(chosen_of(64), 0);
}

TEST(DraftPolicy, TriesAgainAfterAWhile) {
  DraftPolicy policy = learnt(0.01, 1);
  const DraftPolicy::Candidate likely[] = {{0.9, 4}};
  for (int i = 0; i < 2000; ++i) policy.observe(1, 1.01);
  EXPECT_GT(policy.choose(likely, 100)[0], 0);
}

}  // namespace
}  // namespace lorry::generate
