#include "generate/sampling.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <set>

namespace lorry::generate {
namespace {

TEST(Sampling, GreedyTakesTheLowestOfTheLikeliest) {
  std::mt19937_64 rng(1);
  SamplingParams params;
  params.temperature = 0;
  const at::Tensor logits = at::tensor({0.f, 2.f, 2.f, 1.f});
  const Sample got = sample(logits, params, rng);
  EXPECT_EQ(got.id, 1);
  EXPECT_NEAR(got.logprob, at::log_softmax(logits, 0)[1].item<float>(), 1e-6);
}

TEST(Sampling, FollowsTheDistribution) {
  std::mt19937_64 rng(1);
  const at::Tensor probabilities = at::tensor({0.1f, 0.6f, 0.3f});
  std::vector<int> counts(3);
  for (int i = 0; i < 20000; ++i) ++counts[sample(probabilities.log(), {}, rng).id];
  for (int i = 0; i < 3; ++i) {
    EXPECT_NEAR(counts[i] / 20000.0, probabilities[i].item<float>(), 0.02);
  }
}

TEST(Sampling, CutsTheTail) {
  std::mt19937_64 rng(1);
  const at::Tensor logits = at::tensor({0.1f, 0.5f, 0.25f, 0.15f}).log();
  const auto seen = [&](const SamplingParams& params) {
    std::set<int32_t> ids;
    for (int i = 0; i < 2000; ++i) ids.insert(sample(logits, params, rng).id);
    return ids;
  };
  SamplingParams top_k, top_p, min_p;
  top_k.top_k = 2;
  top_p.top_p = 0.8;
  min_p.min_p = 0.4;
  EXPECT_EQ(seen(top_k), (std::set<int32_t>{1, 2}));
  EXPECT_EQ(seen(top_p), (std::set<int32_t>{1, 2, 3}));
  EXPECT_EQ(seen(min_p), (std::set<int32_t>{1, 2}));
}

TEST(Sampling, PenaltiesLookAtTheHistory) {
  std::mt19937_64 rng(1);
  SamplingParams params;
  params.temperature = 0;
  const std::vector<int32_t> prompt = {0}, output = {1, 1};
  const at::Tensor logits = at::tensor({3.f, 2.9f, 2.f});
  params.frequency_penalty = 2;
  EXPECT_EQ(sample(logits, params, rng, {prompt, output}).id, 0);
  params.frequency_penalty = 0;
  params.repetition_penalty = 2;
  EXPECT_EQ(sample(logits, params, rng, {prompt, output}).id, 2);
}

}  // namespace
}  // namespace lorry::generate
