#include "generate/scheduler.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <map>
#include <mutex>
#include <stdexcept>

namespace lorry::generate {
namespace {

constexpr int64_t kVocab = 64;

/// After token t comes t + 1; counts what it was given.
class CountingModel : public StepModel {
 public:
  /// Sizes of the steps go to `batch_sizes`, if it is not null.
  explicit CountingModel(int64_t capacity = 1000, std::vector<size_t>* batch_sizes = nullptr)
      : capacity_(capacity), free_(capacity), batch_sizes_(batch_sizes) {}
  int64_t capacity_tokens() const override { return capacity_; }
  int64_t free_tokens() const override { return free_; }
  int64_t step_tokens() const override { return 512; }
  bool reserve(KvCache::Sequence& sequence, int64_t tokens) override {
    const int64_t held = static_cast<int64_t>(sequence.blocks.size());
    if (tokens - held > free_) return false;
    if (tokens > held) {
      free_ -= tokens - held;
      sequence.blocks.resize(static_cast<size_t>(tokens));
    }
    return true;
  }
  void release(KvCache::Sequence& sequence) override {
    free_ += static_cast<int64_t>(sequence.blocks.size());
    sequence = {};
  }
  at::Tensor step(std::span<const SequenceStep> steps) override {
    if (batch_sizes_) batch_sizes_->push_back(steps.size());
    std::vector<at::Tensor> logits;
    for (const SequenceStep& step : steps) {
      EXPECT_FALSE(step.tokens.empty());
      EXPECT_LE(step.cache->length + static_cast<int64_t>(step.tokens.size()),
                static_cast<int64_t>(step.cache->blocks.size()));
      for (const int32_t token : step.tokens.last(static_cast<size_t>(step.logits))) {
        at::Tensor one = at::zeros({kVocab});
        one[(token + 1) % kVocab] = 20.0F;
        logits.push_back(one);
      }
    }
    return logits.empty() ? at::Tensor() : at::stack(logits);
  }

 private:
  int64_t capacity_, free_;
  std::vector<size_t>* batch_sizes_;
};

/// Collects the tokens of several sequences and waits for their ends.
class Collector {
 public:
  Scheduler::OnToken on_token(int key) {
    return [this, key](TokenEvent event) {
      std::lock_guard lock(mutex_);
      if (event.id >= 0) tokens_[key].push_back(event.id);
      if (event.finish != FinishReason::kNone) {
        finish_[key] = event.finish;
        order_.push_back(key);
        wake_.notify_all();
      }
    };
  }
  void wait(size_t count) {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return finish_.size() == count; });
  }
  std::map<int, std::vector<int32_t>> tokens_;
  std::map<int, FinishReason> finish_;
  std::vector<int> order_;

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
};

SequenceRequest greedy(std::vector<int32_t> prompt, int64_t max_tokens) {
  SequenceRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

std::vector<int32_t> counting(int32_t from, int64_t n) {
  std::vector<int32_t> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(static_cast<int32_t>((from + i) % kVocab));
  return out;
}

struct Fixture {
  explicit Fixture(SchedulerOptions options, int64_t capacity = 1000) : scheduler(options) {
    scheduler.add_model(std::make_unique<CountingModel>(capacity, &batch_sizes));
  }
  std::vector<size_t> batch_sizes;
  Collector collector;
  Scheduler scheduler;
};

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
  Fixture f({}, 40);
  for (int i = 0; i < 3; ++i)
    ASSERT_TRUE(f.scheduler.submit(0, greedy(counting(i, 5), 30), f.collector.on_token(i)).ok());
  f.scheduler.start();
  f.collector.wait(3);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(f.collector.tokens_[i], counting(i + 5, 30)) << i;
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
    const bool expected = prompt[i + 1] == prompt[i] + 1;  // by a model that counts
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
  Fixture f({.max_step_tokens = 4}, 40);
  std::vector<TokenScore> whole, late;
  SequenceRequest fills = greedy(counting(0, 40), 0), preempted = greedy(counting(0, 12), 6);
  fills.score_prompt = preempted.score_prompt = true;
  fills.top_logprobs = preempted.top_logprobs = 1;
  ASSERT_TRUE(f.scheduler.submit(0, greedy({1}, 30), f.collector.on_token(0)).ok());
  ASSERT_TRUE(f.scheduler.submit(0, preempted, scores_into(late, f.collector.on_token(1))).ok());
  ASSERT_TRUE(f.scheduler.submit(0, fills, scores_into(whole, f.collector.on_token(2))).ok());
  f.scheduler.start();
  f.collector.wait(3);
  expect_scores_of(counting(0, 12), late);
  expect_scores_of(counting(0, 40), whole);
  EXPECT_EQ(f.collector.tokens_[1], counting(12, 6));
}

TEST(Scheduler, WhatCanNeverFitIsRefused) {
  Fixture f({}, 40);
  const auto ticket = f.scheduler.submit(0, greedy({1}, 40), f.collector.on_token(0));
  ASSERT_FALSE(ticket.ok());
  EXPECT_EQ(ticket.error().kind, ErrorKind::kInvalidInput);
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

/// Notes what each step brings: tokens in the cache, new ones, and those known in all.
class LengthNotingModel final : public CountingModel {
 public:
  using Step = std::array<int64_t, 3>;
  explicit LengthNotingModel(std::vector<Step>* seen) : seen_(seen) {}
  int64_t step_tokens() const override { return 3; }
  int64_t keys_change_after() const override { return 6; }
  at::Tensor step(std::span<const SequenceStep> steps) override {
    for (const SequenceStep& step : steps) {
      seen_->push_back(
          {step.cache->length, static_cast<int64_t>(step.tokens.size()), step.known_tokens});
    }
    return CountingModel::step(steps);
  }

 private:
  std::vector<Step>* seen_;
};

TEST(Scheduler, ASequenceWhoseKeysChangeWithItsLengthIsComputedAnew) {
  std::vector<LengthNotingModel::Step> seen;
  Collector collector;
  Scheduler scheduler({});
  scheduler.add_model(std::make_unique<LengthNotingModel>(&seen));
  ASSERT_TRUE(scheduler.submit(0, greedy({1, 2, 3, 4}, 5), collector.on_token(0)).ok());
  scheduler.start();
  collector.wait(1);
  scheduler.stop();
  EXPECT_EQ(collector.tokens_[0], counting(5, 5));
  // The prompt in two parts, two tokens, then all seven in three parts.
  const std::vector<LengthNotingModel::Step> expected = {
      {0, 3, 4}, {3, 1, 4}, {4, 1, 5}, {5, 1, 6}, {0, 3, 7}, {3, 3, 7}, {6, 1, 7}, {7, 1, 8}};
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
