#include "generate/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "generate/scheduler_fixture.h"

namespace lorry::generate {
namespace {

TEST(Scheduler, AnswersUntilMaxTokensOrAStopId) {
  Fixture f({});
  SequenceRequest stopping = greedy({5}, 50);
  stopping.stop_ids = {9};
  ASSERT_TRUE(f.scheduler.submit(0, greedy({1, 2, 3}, 4), f.collector.on_token(0)).ok());
  ASSERT_TRUE(f.scheduler.submit(0, std::move(stopping), f.collector.on_token(1)).ok());
  f.scheduler.start();
  f.collector.wait(2);
  EXPECT_EQ(f.collector.tokens_[0], (std::vector<int32_t>{4, 5, 6, 7}));
  EXPECT_EQ(f.collector.finish_[0], FinishReason::kLength);
  EXPECT_EQ(f.collector.tokens_[1], (std::vector<int32_t>{6, 7, 8, 9}));
  EXPECT_EQ(f.collector.finish_[1], FinishReason::kStop);
}

TEST(Scheduler, StepsAllSequencesTogether) {
  Fixture f({});
  for (int i = 0; i < 8; ++i)
    ASSERT_TRUE(f.scheduler.submit(0, greedy({i}, 10), f.collector.on_token(i)).ok());
  f.scheduler.start();
  f.collector.wait(8);
  EXPECT_EQ(f.batch_sizes, std::vector<size_t>(10, 8));
}

TEST(Scheduler, LongPromptsGoThroughInChunks) {
  Fixture f({.max_step_tokens = 16});
  ASSERT_TRUE(f.scheduler.submit(0, greedy(counting(0, 50), 3), f.collector.on_token(0)).ok());
  f.scheduler.start();
  f.collector.wait(1);
  EXPECT_EQ(f.collector.tokens_[0], (std::vector<int32_t>{50, 51, 52}));
  EXPECT_EQ(f.batch_sizes.size(), 4u + 2u);
}

TEST(Scheduler, StartsInTheOrderOfArrival) {
  Fixture f({.max_num_seqs = 1});
  for (int i = 0; i < 4; ++i)
    ASSERT_TRUE(f.scheduler.submit(0, greedy({i}, 3), f.collector.on_token(i)).ok());
  f.scheduler.start();
  f.collector.wait(4);
  EXPECT_EQ(f.collector.order_, (std::vector<int>{0, 1, 2, 3}));
}

TEST(Scheduler, AFullCacheDelaysTheYoungestWithoutChangingItsAnswer) {
  Fixture f({}, 4 * KvCache::kBlockTokens);
  for (int i = 0; i < 3; ++i)
    ASSERT_TRUE(f.scheduler.submit(0, greedy(counting(i, 5), 60), f.collector.on_token(i)).ok());
  f.scheduler.start();
  f.collector.wait(3);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(f.collector.tokens_[i], counting(i + 5, 60)) << i;
  EXPECT_EQ(f.collector.order_, (std::vector<int>{0, 1, 2}));
}

/// Gathers the scores of a prompt.
Scheduler::OnToken scores_into(std::vector<TokenScore>& scores, Scheduler::OnToken next) {
  return [&scores, next = std::move(next)](TokenEvent event) {
    scores.insert(scores.end(), event.prompt.begin(), event.prompt.end());
    next(std::move(event));
  };
}

void expect_scores_of(const std::vector<int32_t>& prompt, const std::vector<TokenScore>& scores) {
  ASSERT_EQ(scores.size(), prompt.size() - 1);
  for (size_t i = 0; i < scores.size(); ++i) {
    EXPECT_EQ(scores[i].id, prompt[i + 1]);
    const bool expected = prompt[i + 1] == (prompt[i] + 1) % kVocab;  // by a model that counts
    EXPECT_NEAR(scores[i].logprob, expected ? 0 : -20, 0.01) << i;
    ASSERT_EQ(scores[i].top.size(), 1u);
    EXPECT_EQ(scores[i].top[0].id, (prompt[i] + 1) % kVocab);
  }
}

TEST(Scheduler, APromptIsScoredInWhateverChunksItGoesThrough) {
  Fixture f({.max_step_tokens = 7});
  std::vector<TokenScore> alone, first;
  std::vector<int32_t> prompt = counting(3, 40);
  prompt[20] = 9;
  SequenceRequest scoring = greedy(prompt, 0), answering = greedy(prompt, 3);
  scoring.score_prompt = answering.score_prompt = true;
  scoring.top_logprobs = answering.top_logprobs = 1;
  ASSERT_TRUE(f.scheduler.submit(0, scoring, scores_into(alone, f.collector.on_token(0))).ok());
  ASSERT_TRUE(f.scheduler.submit(0, answering, scores_into(first, f.collector.on_token(1))).ok());
  ASSERT_TRUE(f.scheduler.submit(0, greedy({1}, 5), f.collector.on_token(2)).ok());
  f.scheduler.start();
  f.collector.wait(3);
  expect_scores_of(prompt, alone);
  expect_scores_of(prompt, first);
  EXPECT_TRUE(f.collector.tokens_[0].empty());
  EXPECT_EQ(f.collector.finish_[0], FinishReason::kLength);
  EXPECT_EQ(f.collector.tokens_[1], counting(43, 3));
  EXPECT_EQ(f.collector.tokens_[2], counting(2, 5));
}

TEST(Scheduler, APromptThatFillsTheCacheIsScoredOnceThoughItIsPreempted) {
  Fixture f({.max_step_tokens = 4}, 4 * KvCache::kBlockTokens);
  std::vector<TokenScore> whole, late;
  SequenceRequest fills = greedy(counting(0, 128), 0), preempted = greedy(counting(0, 40), 30);
  fills.score_prompt = preempted.score_prompt = true;
  fills.top_logprobs = preempted.top_logprobs = 1;
  ASSERT_TRUE(f.scheduler.submit(0, greedy({1}, 100), f.collector.on_token(0)).ok());
  ASSERT_TRUE(f.scheduler.submit(0, preempted, scores_into(late, f.collector.on_token(1))).ok());
  ASSERT_TRUE(f.scheduler.submit(0, fills, scores_into(whole, f.collector.on_token(2))).ok());
  f.scheduler.start();
  f.collector.wait(3);
  expect_scores_of(counting(0, 40), late);
  expect_scores_of(counting(0, 128), whole);
  EXPECT_EQ(f.collector.tokens_[1], counting(40, 30));
}

TEST(Scheduler, WhatCanNeverFitIsRefused) {
  Fixture f({}, 64);
  const auto ticket = f.scheduler.submit(0, greedy({1}, 64), f.collector.on_token(0));
  ASSERT_FALSE(ticket.ok());
  EXPECT_EQ(ticket.error().kind, ErrorKind::kInvalidInput);
}

TEST(Scheduler, MoreThanMayWaitAreRefusedUntilThereIsRoom) {
  Fixture f({.max_num_seqs = 2, .max_queued = 1});
  for (int i = 0; i < 3; ++i)  // two places and one that waits
    ASSERT_TRUE(f.scheduler.submit(0, greedy({i}, 3), f.collector.on_token(i)).ok());
  const auto refused = f.scheduler.submit(0, greedy({1}, 1), f.collector.on_token(9));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().kind, ErrorKind::kUnavailable);
  f.scheduler.start();
  f.collector.wait(3);
  while (f.scheduler.state(0).running > 0) std::this_thread::yield();
  EXPECT_TRUE(f.scheduler.submit(0, greedy({1}, 1), f.collector.on_token(3)).ok());
  f.collector.wait(4);
}

TEST(Scheduler, ACancelledSequenceLeavesTheOthersAlone) {
  Fixture f({});
  const auto ticket = f.scheduler.submit(0, greedy({1}, 900), f.collector.on_token(0));
  ASSERT_TRUE(ticket.ok());
  **ticket = true;
  ASSERT_TRUE(f.scheduler.submit(0, greedy({1}, 5), f.collector.on_token(1)).ok());
  f.scheduler.start();
  f.collector.wait(2);
  EXPECT_EQ(f.collector.finish_[0], FinishReason::kCancelled);
  EXPECT_EQ(f.collector.tokens_[1].size(), 5u);
}

TEST(Scheduler, StoppingEndsWhatWaits) {
  Fixture f({.max_num_seqs = 1});
  for (int i = 0; i < 3; ++i)
    ASSERT_TRUE(f.scheduler.submit(0, greedy({1}, 900), f.collector.on_token(i)).ok());
  f.scheduler.start();
  f.scheduler.stop();
  EXPECT_EQ(f.collector.finish_.size(), 3u);
  EXPECT_FALSE(f.scheduler.submit(0, greedy({1}, 1), f.collector.on_token(9)).ok());
}

TEST(Scheduler, TheSameSeedGivesTheSameTokens) {
  Fixture f({});
  for (int i = 0; i < 3; ++i) {
    SequenceRequest request = greedy({1}, 40);
    request.sampling.temperature = 8;  // flat: the counting model's choice is far from certain
    request.seed = i < 2 ? 7 : 8;
    ASSERT_TRUE(f.scheduler.submit(0, std::move(request), f.collector.on_token(i)).ok());
  }
  f.scheduler.start();
  f.collector.wait(3);
  EXPECT_EQ(f.collector.tokens_[0], f.collector.tokens_[1]);
  EXPECT_NE(f.collector.tokens_[0], f.collector.tokens_[2]);
}

/// Counting, and notes which adapter each sequence, known by its first token, was stepped with.
/// Fails whenever a step holds the token 13, as an embedding without a row for it does.
class FailingModel final : public CountingModel {
 public:
  at::Tensor step(std::span<const SequenceStep> steps) override {
    for (const SequenceStep& step : steps) {
      if (std::count(step.tokens.begin(), step.tokens.end(), 13) > 0) {
        throw std::runtime_error("index out of range");
      }
    }
    return CountingModel::step(steps);
  }
};

TEST(Scheduler, ASequenceThatFailsTheModelEndsAlone) {
  Collector collector;
  Scheduler scheduler({});
  scheduler.add_model(std::make_unique<FailingModel>());
  ASSERT_TRUE(scheduler.submit(0, greedy({20, 21}, 6), collector.on_token(0)).ok());
  ASSERT_TRUE(scheduler.submit(0, greedy({1, 13}, 6), collector.on_token(1)).ok());
  ASSERT_TRUE(scheduler.submit(0, greedy({30}, 6), collector.on_token(2)).ok());
  scheduler.start();
  collector.wait(3);
  scheduler.stop();
  EXPECT_EQ(collector.finish_[1], FinishReason::kError);
  EXPECT_EQ(collector.finish_[0], FinishReason::kLength);
  EXPECT_EQ(collector.tokens_[0], counting(22, 6));
  EXPECT_EQ(collector.tokens_[2], counting(31, 6));
}

/// Its device computes three steps and then nothing more.
class DyingModel final : public CountingModel {
 public:
  bool device_works() override { return steps_ <= 3; }
  at::Tensor step(std::span<const SequenceStep> steps) override {
    if (++steps_ > 3) throw std::runtime_error("an illegal memory access was encountered\nmore");
    return CountingModel::step(steps);
  }

 private:
  int steps_ = 0;
};

TEST(Scheduler, ADeviceThatFailsEndsAllSequencesAndTakesNoMore) {
  Collector collector;
  Scheduler scheduler({.max_num_seqs = 2});
  scheduler.add_model(std::make_unique<DyingModel>());
  std::string error;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(scheduler
                    .submit(0, greedy({i}, 9),
                            [&error, next = collector.on_token(i)](TokenEvent event) {
                              if (!event.error.empty()) error = event.error;
                              next(std::move(event));
                            })
                    .ok());
  }
  EXPECT_EQ(scheduler.failure(), "");
  scheduler.start();
  collector.wait(3);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(collector.finish_[i], FinishReason::kError);
  EXPECT_EQ(collector.tokens_[0].size(), 3u);
  EXPECT_EQ(scheduler.failure(), error);
  EXPECT_NE(error.find("restart the server: an illegal memory access"), std::string::npos);
  EXPECT_EQ(error.find("more\n"), std::string::npos);
  const auto refused = scheduler.submit(0, greedy({1}, 1), collector.on_token(9));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().kind, ErrorKind::kCancelled);
}

TEST(Scheduler, ASequenceWhoseKeysChangeWithItsLengthIsComputedAnew) {
  std::vector<NotingModel::Step> seen;
  Collector collector;
  Scheduler scheduler({});
  scheduler.add_model(std::make_unique<NotingModel>(&seen, 3, 6));
  ASSERT_TRUE(scheduler.submit(0, greedy({1, 2, 3, 4}, 5), collector.on_token(0)).ok());
  scheduler.start();
  collector.wait(1);
  scheduler.stop();
  EXPECT_EQ(collector.tokens_[0], counting(5, 5));
  // The prompt in two parts, two tokens, then all seven in three parts.
  const std::vector<NotingModel::Step> expected = {{0, 3, 4}, {3, 1, 4}, {4, 1, 5}, {5, 1, 6},
                                                   {0, 3, 7}, {3, 3, 7}, {6, 1, 7}, {7, 1, 8}};
  EXPECT_EQ(seen, expected);
}

class AdapterNotingModel final : public CountingModel {
 public:
  explicit AdapterNotingModel(std::map<int32_t, std::vector<const model::LoraAdapter*>>* seen)
      : seen_(seen) {}
  at::Tensor step(std::span<const SequenceStep> steps) override {
    for (const SequenceStep& step : steps) {
      const auto first = static_cast<int32_t>(step.tokens.back() - step.cache->length);
      (*seen_)[first].push_back(step.adapter.get());
    }
    return CountingModel::step(steps);
  }

 private:
  std::map<int32_t, std::vector<const model::LoraAdapter*>>* seen_;
};

TEST(Scheduler, ARunningSequenceKeepsTheAdapterItBeganWith) {
  std::map<int32_t, std::vector<const model::LoraAdapter*>> seen;
  Collector collector;
  Scheduler scheduler({});
  scheduler.add_model(std::make_unique<AdapterNotingModel>(&seen));
  auto served = std::make_shared<const model::LoraAdapter>();
  const model::LoraAdapter* const first = served.get();
  const std::weak_ptr<const model::LoraAdapter> before = served;
  const auto submit = [&](int32_t first, Scheduler::OnToken on_token) {
    SequenceRequest request = greedy({first}, 6);
    request.adapter = served;
    ASSERT_TRUE(scheduler.submit(0, std::move(request), std::move(on_token)).ok());
  };
  int tokens = 0;
  submit(10, [&, done = collector.on_token(10)](TokenEvent event) {
    EXPECT_FALSE(before.expired());
    if (++tokens == 2) {  // in the middle of the run: another adapter takes the name
      served = std::make_shared<const model::LoraAdapter>();
      submit(30, collector.on_token(30));
    }
    done(std::move(event));
  });
  scheduler.start();
  collector.wait(2);
  scheduler.stop();
  EXPECT_EQ(seen[10], std::vector(6, first));
  EXPECT_EQ(seen[30], std::vector(6, static_cast<const model::LoraAdapter*>(served.get())));
  EXPECT_TRUE(before.expired());
}

TEST(Scheduler, PenaltiesBiasAndLogprobsAreApplied) {
  Fixture f({});
  SequenceRequest biased = greedy({1}, 2);
  biased.logit_bias = {{40, 100.0F}};
  biased.top_logprobs = 2;
  std::vector<TokenEvent> events;
  std::mutex mutex;
  ASSERT_TRUE(f.scheduler
                  .submit(0, std::move(biased),
                          [&, done = f.collector.on_token(0)](TokenEvent event) {
                            std::lock_guard lock(mutex);
                            events.push_back(event);
                            done(std::move(event));
                          })
                  .ok());
  f.scheduler.start();
  f.collector.wait(1);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].id, 40);
  ASSERT_EQ(events[0].top.size(), 2u);
  EXPECT_EQ(events[0].top[0].id, 2);  // under the model's own distribution
  EXPECT_NEAR(events[0].logprob, -20, 0.01);
  EXPECT_NEAR(events[0].top[0].logprob, 0, 0.01);
}

}  // namespace
}  // namespace lorry::generate
