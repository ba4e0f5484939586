// Drafts in the scheduler: the same answers in fewer steps.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "generate/scheduler_fixture.h"

namespace lorry::generate {
namespace {

const SpeculationOptions kDrafts{4, 3, 1};

/// A model of which the token after t is t + 1, at times t + 2, in a circle of 16: texts repeat,
/// but not always. Notes the rows of its steps.
class CirclingModel final : public CountingModel {
 public:
  explicit CirclingModel(std::vector<size_t>* rows, int64_t capacity = 4000,
                         int64_t keys_change_after = 0)
      : CountingModel(capacity), rows_(rows), keys_change_after_(keys_change_after) {}
  int64_t keys_change_after() const override { return keys_change_after_; }
  at::Tensor step(std::span<const SequenceStep> steps) override {
    std::vector<at::Tensor> logits;
    size_t rows = 0;
    for (const SequenceStep& step : steps) {
      EXPECT_LE(step.cache->length + static_cast<int64_t>(step.tokens.size()),
                static_cast<int64_t>(step.cache->blocks.size()) * KvCache::kBlockTokens);
      rows += step.tokens.size();
      const auto first = static_cast<int64_t>(step.tokens.size()) - step.logits;
      for (int64_t i = first; i < static_cast<int64_t>(step.tokens.size()); ++i) {
        const bool is_long = keys_change_after_ > 0 && step.known_tokens > keys_change_after_;
        logits.push_back(
            after(step.tokens[static_cast<size_t>(i)], step.cache->length + i, is_long));
      }
    }
    if (rows_) rows_->push_back(rows);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // what a step costs without rows
    return logits.empty() ? at::Tensor() : at::stack(logits);
  }

 private:
  static at::Tensor after(int32_t token, int64_t position, bool is_long) {
    at::Tensor logits = at::zeros({kVocab});
    const int64_t step = position % 23 == 0 ? 2 : is_long ? 3 : 1;
    logits[(token + step) % 16] = 4.0F;
    logits[(token + 5) % 16] = 3.0F;
    return logits;
  }

  std::vector<size_t>* rows_;
  int64_t keys_change_after_;
};

struct Answers {
  std::map<int, std::vector<int32_t>> tokens;
  std::map<int, std::vector<float>> logprobs;
  std::map<int, FinishReason> finish;
  std::vector<size_t> rows;
  QueueState state;
};

Answers run(const std::vector<SequenceRequest>& requests, SpeculationOptions speculation,
            int64_t capacity = 4000, int64_t keys_change_after = 0) {
  Answers out;
  Collector collector;
  Scheduler scheduler({.speculation = speculation});
  scheduler.add_model(std::make_unique<CirclingModel>(&out.rows, capacity, keys_change_after));
  for (size_t i = 0; i < requests.size(); ++i) {
    const int key = static_cast<int>(i);
    EXPECT_TRUE(scheduler
                    .submit(0, requests[i],
                            [&out, key, next = collector.on_token(key)](TokenEvent event) {
                              if (event.id >= 0) out.logprobs[key].push_back(event.logprob);
                              next(std::move(event));
                            })
                    .ok());
  }
  scheduler.start();
  collector.wait(requests.size());
  scheduler.stop();
  out.state = scheduler.state(0);
  out.tokens = collector.tokens_;
  out.finish = collector.finish_;
  return out;
}

void expect_equal(const Answers& drafted, const Answers& plain) {
  EXPECT_EQ(drafted.tokens, plain.tokens);
  EXPECT_EQ(drafted.logprobs, plain.logprobs);
  EXPECT_EQ(drafted.finish, plain.finish);
}

TEST(Speculation, GivesTheSameAnswerInFewerSteps) {
  const std::vector<SequenceRequest> requests = {greedy(counting(0, 40), 200)};
  const Answers plain = run(requests, {}), drafted = run(requests, kDrafts);
  expect_equal(drafted, plain);
  EXPECT_LT(drafted.rows.size(), plain.rows.size());
  EXPECT_GT(drafted.state.accepted_tokens, 20u);
  EXPECT_GE(drafted.state.draft_tokens, drafted.state.accepted_tokens);
  EXPECT_EQ(plain.state.draft_tokens, 0u);
}

TEST(Speculation, ChangesNeitherSamplingNorPenaltiesNorEnds) {
  std::vector<SequenceRequest> requests;
  for (int i = 0; i < 12; ++i) {
    SequenceRequest request = greedy(counting(i, 20 + i), 60 + i);
    request.sampling.temperature = i % 3 == 0 ? 0 : 0.8;
    if (i % 4 == 1) request.sampling.frequency_penalty = 0.2;
    if (i % 4 == 2) request.sampling.repetition_penalty = 1.2;
    if (i % 4 == 3) request.logit_bias = {{3, 1.5F}, {40, 2.0F}};
    if (i % 5 == 0) request.top_logprobs = 2;
    if (i % 6 == 5) request.stop_ids = {40, 9};
    request.seed = static_cast<uint64_t>(i);
    requests.push_back(request);
  }
  for (const int64_t capacity : {4000, 480}) {  // the second preempts
    const Answers plain = run(requests, {}, capacity), drafted = run(requests, kDrafts, capacity);
    expect_equal(drafted, plain);
    EXPECT_GT(drafted.state.draft_tokens, 0u);
  }
}

TEST(Speculation, KeysThatChangeWithTheLengthAreThoseOfOneTokenAtATime) {
  const std::vector<SequenceRequest> requests = {greedy(counting(0, 40), 200)};
  for (const int64_t limit : {60, 63, 64, 65, 100}) {
    expect_equal(run(requests, kDrafts, 4000, limit), run(requests, {}, 4000, limit));
  }
}

TEST(Speculation, ACancelledSequenceEndsWithItsDrafts) {
  std::vector<size_t> rows;
  Collector collector;
  Scheduler scheduler({.speculation = kDrafts});
  scheduler.add_model(std::make_unique<CirclingModel>(&rows));
  Scheduler::Ticket ticket;
  int seen = 0;
  std::mutex mutex;
  std::unique_lock lock(mutex);
  const auto submitted = scheduler.submit(0, greedy(counting(0, 40), 3000),
                                          [&, next = collector.on_token(0)](TokenEvent event) {
                                            std::lock_guard inner(mutex);
                                            if (++seen == 50) *ticket = true;
                                            next(std::move(event));
                                          });
  ASSERT_TRUE(submitted.ok());
  ticket = *submitted;
  lock.unlock();
  ASSERT_TRUE(scheduler.submit(0, greedy(counting(0, 40), 100), collector.on_token(1)).ok());
  scheduler.start();
  collector.wait(2);
  scheduler.stop();
  EXPECT_EQ(collector.finish_[0], FinishReason::kCancelled);
  EXPECT_EQ(collector.tokens_[1].size(), 100u);
  EXPECT_EQ(scheduler.state(0).cache_used, 0);
}

}  // namespace
}  // namespace lorry::generate
