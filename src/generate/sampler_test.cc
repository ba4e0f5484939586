#include "generate/sampler.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

namespace lorry::generate {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The plain form of sampling: every step over the whole vocabulary, in float64 where the draw is
/// decided, and a full sort.
class PlainSampler {
 public:
  PlainSampler(std::vector<float> logits, const SamplingParams& params)
      : logits_(std::move(logits)), params_(params) {
    for (float& logit : logits_) logit = clean(logit);
  }
  void add_bias(int32_t id, float bias) { logits_[id] = clean(logits_[id] + bias); }
  void add_penalties(std::span<const int32_t> prompt, std::span<const int32_t> output) {
    std::map<int32_t, int64_t> counts;
    for (const int32_t id : prompt) counts[id];
    for (const int32_t id : output) ++counts[id];
    const auto penalty = static_cast<float>(params_.repetition_penalty);
    for (const auto& [id, count] : counts) {
      logits_[id] = logits_[id] > 0 ? logits_[id] / penalty : logits_[id] * penalty;
      if (count == 0) continue;
      logits_[id] -= static_cast<float>(params_.frequency_penalty * static_cast<double>(count) +
                                        params_.presence_penalty);
    }
  }
  int32_t sample(std::mt19937_64& rng) {
    top_ = *std::max_element(logits_.begin(), logits_.end());
    if (params_.temperature <= 0 || params_.top_k == 1) return argmax();
    for (const float logit : logits_) {
      weights_.push_back(std::exp((static_cast<double>(logit) - top_) / params_.temperature));
    }
    ids_.resize(logits_.size());
    std::iota(ids_.begin(), ids_.end(), 0);
    const bool cut = params_.top_k > 0 || params_.min_p > 0 || params_.top_p < 1;
    if (!cut) return walk(ids_.size(), rng);
    std::sort(ids_.begin(), ids_.end(), [&](int32_t a, int32_t b) {
      return logits_[a] != logits_[b] ? logits_[a] > logits_[b] : a < b;
    });
    return walk(count_kept(), rng);
  }

 private:
  static float clean(float logit) {
    if (std::isnan(logit)) return -kInfinity;
    return std::min(logit, std::numeric_limits<float>::max());
  }
  int32_t argmax() const {
    return static_cast<int32_t>(std::find(logits_.begin(), logits_.end(), top_) - logits_.begin());
  }
  size_t count_kept() const {
    size_t kept = ids_.size();
    if (params_.top_k > 0) kept = std::min(kept, static_cast<size_t>(params_.top_k));
    if (params_.min_p > 0) {
      size_t n = 1;
      while (n < kept && weights_[ids_[n]] >= params_.min_p) ++n;
      kept = n;
    }
    if (params_.top_p >= 1) return kept;
    double total = 0, mass = weights_[ids_[0]];
    if (kept < ids_.size()) {
      for (size_t i = 0; i < kept; ++i) total += weights_[ids_[i]];
    } else {
      for (const double weight : weights_) total += weight;
    }
    size_t n = 1;
    while (n < kept && mass < params_.top_p * total) mass += weights_[ids_[n++]];
    return n;
  }
  int32_t walk(size_t kept, std::mt19937_64& rng) const {
    double total = 0;
    for (size_t i = 0; i < kept; ++i) total += weights_[ids_[i]];
    const double target = static_cast<double>(rng() >> 11) * 0x1.0p-53 * total;
    double mass = 0;
    for (size_t i = 0; i < kept; ++i) {
      mass += weights_[ids_[i]];
      if (mass > target) return ids_[i];
    }
    return ids_[kept - 1];
  }

  std::vector<float> logits_;
  SamplingParams params_;
  float top_ = 0;
  std::vector<double> weights_;
  std::vector<int32_t> ids_;
};

/// Sequences to sample for, with the memory that their rows point into.
struct Batch {
  std::vector<SequenceRequest> requests;
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::mt19937_64> rngs;

  void add(SequenceRequest request, std::vector<int32_t> answer, uint64_t seed) {
    tokens.push_back(request.prompt);
    tokens.back().insert(tokens.back().end(), answer.begin(), answer.end());
    requests.push_back(std::move(request));
    rngs.emplace_back(seed);
  }
  std::vector<SamplingRow> rows() {
    std::vector<SamplingRow> out;
    for (size_t i = 0; i < requests.size(); ++i) {
      out.push_back({&requests[i], tokens[i], &rngs[i]});
    }
    return out;
  }
};

std::vector<int32_t> ids_of(const std::vector<TokenEvent>& events) {
  std::vector<int32_t> ids;
  for (const TokenEvent& event : events) ids.push_back(event.id);
  return ids;
}

int32_t sample_one(const at::Tensor& logits, const SamplingParams& params, uint64_t seed) {
  Batch batch;
  batch.add({.prompt = {0}, .sampling = params}, {}, seed);
  return sample_rows(logits.unsqueeze(0), batch.rows())[0].id;
}

/// Parameters of all kinds, drawn from `random`.
SequenceRequest random_request(std::mt19937_64& random, int64_t vocab) {
  const auto choose = [&](std::initializer_list<double> values) {
    return *(values.begin() + random() % values.size());
  };
  const auto id = [&] { return static_cast<int32_t>(random() % static_cast<uint64_t>(vocab)); };
  SequenceRequest out;
  out.sampling.temperature = choose({0, 0.2, 0.7, 1, 1, 2.5});
  out.sampling.top_k = static_cast<int64_t>(choose({0, 0, 1, 2, 20, 64, 300, 1e6}));
  out.sampling.top_p = choose({1, 1, 0.01, 0.5, 0.8, 0.95, 0.9999});
  out.sampling.min_p = choose({0, 0, 0, 0.001, 0.1, 0.6});
  out.sampling.repetition_penalty = choose({1, 1, 1, 1.3, 0.8});
  out.sampling.frequency_penalty = choose({0, 0, 0.7, -0.3});
  out.sampling.presence_penalty = choose({0, 0, 1.1});
  if (random() % 4 == 0) out.logit_bias = {{id(), 3.5F}, {id(), -100.0F}};
  for (uint64_t i = random() % 9 + 1; i > 0; --i) out.prompt.push_back(id());
  return out;
}

/// Logits of a few shapes: smooth, peaked, with many equal values, with values that are no numbers.
at::Tensor random_logits(int64_t shape, int64_t rows, int64_t vocab) {
  at::Tensor logits = at::randn({rows, vocab}) * 3;
  if (shape == 1) logits = logits.pow(3) * 0.4;
  if (shape == 2) logits = logits.round();
  if (shape == 3) {
    logits.slice(1, 0, vocab, 7).fill_(std::nan(""));
    logits.slice(1, 3, vocab, 11).fill_(-kInfinity);
  }
  if (shape == 4) logits.slice(1, 5, vocab, vocab / 2).fill_(kInfinity);
  return logits;
}

int32_t plain_token(const at::Tensor& logits, const SequenceRequest& request,
                    std::span<const int32_t> tokens, uint64_t seed) {
  const at::Tensor wide = logits.to(at::kFloat).contiguous();
  const float* data = wide.const_data_ptr<float>();
  PlainSampler plain({data, data + wide.numel()}, request.sampling);
  for (const auto& [id, bias] : request.logit_bias) plain.add_bias(id, bias);
  const size_t prompt = request.prompt.size();
  plain.add_penalties(tokens.first(prompt), tokens.subspan(prompt));
  std::mt19937_64 rng(seed);
  return plain.sample(rng);
}

void expect_plain_tokens(int64_t vocab, int64_t rows, at::ScalarType dtype, bool reduced) {
  std::mt19937_64 random(static_cast<uint64_t>(vocab));
  at::manual_seed(static_cast<uint64_t>(vocab));
  for (int64_t shape = 0; shape < 5; ++shape) {
    const at::Tensor logits = random_logits(shape, rows, vocab).to(dtype);
    Batch batch;
    for (int64_t i = 0; i < rows; ++i) {
      SequenceRequest request = random_request(random, vocab);
      const std::vector<int32_t> answer{request.prompt[0], 1, 1};
      batch.add(std::move(request), answer, static_cast<uint64_t>(i));
    }
    const auto got = ids_of(reduced ? detail::sample_rows_reduced(logits, batch.rows())
                                    : sample_rows(logits, batch.rows()));
    for (int64_t i = 0; i < rows; ++i) {
      EXPECT_EQ(got[i], plain_token(logits[i], batch.requests[i], batch.tokens[i],
                                    static_cast<uint64_t>(i)))
          << "shape " << shape << ", row " << i;
    }
  }
}

TEST(Sampler, GivesTheTokensOfThePlainForm) {
  expect_plain_tokens(5, 400, at::kFloat, false);
  expect_plain_tokens(1000, 400, at::kFloat, false);
  expect_plain_tokens(32003, 40, at::kFloat, false);
  expect_plain_tokens(151936, 12, at::kFloat, false);
}

TEST(Sampler, ReadsSixteenBits) {
  expect_plain_tokens(1000, 300, at::kBFloat16, false);
  expect_plain_tokens(1000, 300, at::kHalf, false);
}

TEST(Sampler, ADevicesReductionChangesNothing) {
  expect_plain_tokens(1000, 400, at::kFloat, true);
  expect_plain_tokens(1000, 300, at::kBFloat16, true);
}

TEST(Sampler, DependsOnNeitherTheBatchNorTheThreads) {
  std::mt19937_64 random(3);
  at::manual_seed(3);
  const at::Tensor logits = random_logits(0, 64, 4000);
  Batch batch, again;
  for (int64_t i = 0; i < 64; ++i) {
    const SequenceRequest request = random_request(random, 4000);
    batch.add(request, {1, 2}, 9);
    again.add(request, {1, 2}, 9);
  }
  const int threads = at::get_num_threads();
  const auto together = ids_of(sample_rows(logits, batch.rows()));
  at::set_num_threads(1);
  const auto rows = again.rows();
  for (int64_t i = 0; i < 64; ++i) {
    const auto alone = sample_rows(logits.narrow(0, i, 1), std::span(rows).subspan(i, 1));
    EXPECT_EQ(alone[0].id, together[i]) << i;
  }
  at::set_num_threads(threads);
}

/// What four rows of one sequence give one at a time.
struct OneAtATime {
  OneAtATime(const at::Tensor& logits, const SequenceRequest& request, uint64_t seed)
      : tokens(request.prompt) {
    std::mt19937_64 rng(seed);
    for (int64_t i = 0; i < 4; ++i) {
      const SamplingRow row{&request, tokens, &rng};
      events.push_back(sample_rows(logits.narrow(0, i, 1), std::span(&row, 1))[0]);
      tokens.push_back(events.back().id);
      rngs.push_back(rng);
    }
  }
  std::vector<int32_t> tokens;  // the prompt first
  std::vector<TokenEvent> events;
  std::vector<std::mt19937_64> rngs;  // after each
};

/// Drafts of which the first `right` come true.
void expect_drafts_change_nothing(const at::Tensor& logits, const SequenceRequest& request,
                                  size_t right, bool reduced) {
  const OneAtATime wanted(logits, request, 5);
  std::vector<int32_t> tokens = wanted.tokens;
  const size_t prompt = request.prompt.size();
  if (right < 3) tokens[prompt + right] = (tokens[prompt + right] + 1) % 100;
  std::mt19937_64 rng(5), other_rng(6);
  const SequenceRequest other{.prompt = {3}};
  std::vector<SamplingRow> rows = {{&other, other.prompt, &other_rng}};
  for (size_t i = 0; i < 4; ++i) {
    rows.push_back(
        {&request, std::span(tokens).first(prompt + i), &rng, i < 3 ? tokens[prompt + i] : -1});
  }
  rows.push_back(rows[0]);
  const at::Tensor all = at::cat({logits.narrow(0, 0, 1), logits, logits.narrow(0, 0, 1)});
  const auto got = reduced ? detail::sample_rows_reduced(all, rows) : sample_rows(all, rows);
  EXPECT_GE(got[0].id, 0);
  EXPECT_GE(got[5].id, 0);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(got[i + 1].id, i <= right ? wanted.events[i].id : -1);
    EXPECT_EQ(got[i + 1].logprob, i <= right ? wanted.events[i].logprob : 0);
  }
  EXPECT_TRUE(rng == wanted.rngs[right]);
}

TEST(Sampler, DraftsGiveTheTokensThatComeOneAtATime) {
  std::mt19937_64 random(3);
  at::manual_seed(3);
  for (int i = 0; i < 60; ++i) {
    const at::Tensor logits = random_logits(i % 3, 4, 100);
    SequenceRequest request = random_request(random, 100);
    if (i % 5 == 0) request.top_logprobs = 2;
    for (size_t right = 0; right <= 3; ++right) {
      expect_drafts_change_nothing(logits, request, right, false);
      expect_drafts_change_nothing(logits, request, right, true);
    }
  }
}

TEST(Sampler, GreedyTakesTheLowestOfTheLikeliest) {
  SamplingParams params;
  params.temperature = 0;
  EXPECT_EQ(sample_one(at::tensor({0.f, 2.f, 2.f, 1.f}), params, 1), 1);
}

TEST(Sampler, FollowsTheDistribution) {
  const at::Tensor probabilities = at::tensor({0.1f, 0.6f, 0.3f});
  std::vector<int> counts(3);
  for (uint64_t seed = 0; seed < 20000; ++seed) {
    ++counts[sample_one(probabilities.log(), {}, seed)];
  }
  double chi_square = 0;
  for (int i = 0; i < 3; ++i) {
    const double expected = 20000 * probabilities[i].item<float>();
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi_square, 13.8);  // 2 degrees of freedom: one run in a thousand is above
}

TEST(Sampler, CutsTheTail) {
  const at::Tensor logits = at::tensor({0.1f, 0.5f, 0.25f, 0.15f}).log();
  const auto seen = [&](const SamplingParams& params) {
    std::set<int32_t> ids;
    for (uint64_t seed = 0; seed < 2000; ++seed) ids.insert(sample_one(logits, params, seed));
    return ids;
  };
  EXPECT_EQ(seen({.top_k = 2}), (std::set<int32_t>{1, 2}));
  EXPECT_EQ(seen({.top_p = 0.8}), (std::set<int32_t>{1, 2, 3}));
  EXPECT_EQ(seen({.min_p = 0.4}), (std::set<int32_t>{1, 2}));
}

TEST(Sampler, PenaltiesLookAtTheHistory) {
  const at::Tensor logits = at::tensor({3.f, 2.9f, 2.f}).unsqueeze(0);
  const auto choose = [&](SamplingParams params) {
    params.temperature = 0;
    Batch batch;
    batch.add({.prompt = {0}, .sampling = params}, {1, 1}, 1);
    return sample_rows(logits, batch.rows())[0].id;
  };
  EXPECT_EQ(choose({.frequency_penalty = 2}), 0);
  EXPECT_EQ(choose({.repetition_penalty = 2}), 2);
}

TEST(Sampler, LogprobsAreThoseOfTheModel) {
  at::manual_seed(1);
  const at::Tensor logits = at::randn({3, 5000}) * 4;
  const at::Tensor want = at::log_softmax(logits, 1);
  Batch batch;
  batch.add({.prompt = {0}, .sampling = {.temperature = 0}, .top_logprobs = 3}, {}, 1);
  batch.add({.prompt = {0}, .top_logprobs = 0}, {}, 1);
  batch.add({.prompt = {0},
             .sampling = {.temperature = 2, .repetition_penalty = 1.5},
             .logit_bias = {{7, 50.0F}},
             .top_logprobs = 3},
            {}, 1);
  const auto events = sample_rows(logits, batch.rows());
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(events[i].logprob, want[i][events[i].id].item<float>(), 1e-5);
    const auto [values, ids] = want[i].topk(3);
    ASSERT_EQ(events[i].top.size(), i == 1 ? 0u : 3u);
    for (size_t j = 0; j < events[i].top.size(); ++j) {
      EXPECT_EQ(events[i].top[j].id, ids[static_cast<int64_t>(j)].item<int64_t>());
      EXPECT_NEAR(events[i].top[j].logprob, values[static_cast<int64_t>(j)].item<float>(), 1e-5);
    }
  }
  EXPECT_EQ(events[2].id, 7);
}

TEST(Sampler, ScoresAreTheLogprobsOfAGivenToken) {
  at::manual_seed(5);
  at::Tensor logits = at::randn({3, 500}) * 4;
  logits[2].fill_(std::numeric_limits<float>::quiet_NaN());
  logits[1][7] = -kInfinity;
  const at::Tensor expected = logits.log_softmax(-1);
  const std::vector<ScoringRow> rows = {{3, 0}, {7, 2}, {1, 1}};
  for (const auto& scores : {score_rows(logits, rows), detail::score_rows_reduced(logits, rows)}) {
    ASSERT_EQ(scores.size(), 3u);
    EXPECT_EQ(scores[0].id, 3);
    EXPECT_NEAR(scores[0].logprob, expected[0][3].item<float>(), 1e-5);
    EXPECT_TRUE(scores[0].top.empty());
    EXPECT_EQ(scores[1].logprob, -kInfinity);
    ASSERT_EQ(scores[1].top.size(), 2u);
    EXPECT_EQ(scores[1].top[0].id, expected[1].argmax().item<int64_t>());
    EXPECT_NEAR(scores[1].top[0].logprob, expected[1].max().item<float>(), 1e-5);
    EXPECT_GT(scores[1].top[0].logprob, scores[1].top[1].logprob);
    EXPECT_TRUE(std::isnan(scores[2].logprob));
  }
}

TEST(Sampler, ARowWithoutANumberIsAnError) {
  for (const float value : {std::nanf(""), -kInfinity}) {
    for (const double temperature : {0.0, 1.0}) {
      Batch batch;
      batch.add({.prompt = {0}, .sampling = {.temperature = temperature}}, {}, 1);
      batch.add({.prompt = {0}, .sampling = {.temperature = temperature}}, {}, 1);
      const at::Tensor logits = at::stack({at::full({300}, value), at::arange(300, at::kFloat)});
      for (const auto& events :
           {sample_rows(logits, batch.rows()), detail::sample_rows_reduced(logits, batch.rows())}) {
        EXPECT_EQ(events[0].finish, FinishReason::kError);
        EXPECT_NE(events[0].error.find("NaN"), std::string::npos);
        EXPECT_EQ(events[1].finish, FinishReason::kNone);
        EXPECT_GE(events[1].id, 0);
      }
    }
  }
}

TEST(Sampler, ARowOfInfinitiesGivesSomeToken) {
  for (const double top_p : {1.0, 0.5}) {
    const int32_t id = sample_one(at::full({300}, kInfinity), {.top_p = top_p}, 1);
    EXPECT_GE(id, 0);
    EXPECT_LT(id, 300);
  }
}

}  // namespace
}  // namespace lorry::generate
