// For the scheduler's tests: models that count, and who collects their answers.
#pragma once

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <array>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "generate/scheduler.h"

namespace lorry::generate {

constexpr int64_t kVocab = 64;

/// After token t comes t + 1; notes the sizes of its steps. Its cache has blocks but no tensors.
class CountingModel : public StepModel {
 public:
  /// Sequences of each step go to `batch_sizes`, if it is not null.
  explicit CountingModel(int64_t capacity = 1000, std::vector<size_t>* batch_sizes = nullptr)
      : cache_({}, capacity, at::kFloat, {at::kCPU}), batch_sizes_(batch_sizes) {}
  KvCache& cache() override { return cache_; }
  int64_t step_tokens() const override { return 512; }
  at::Tensor step(std::span<const SequenceStep> steps) override {
    if (batch_sizes_) batch_sizes_->push_back(steps.size());
    std::vector<at::Tensor> logits;
    for (const SequenceStep& step : steps) {
      EXPECT_FALSE(step.tokens.empty());
      EXPECT_LE(step.cache->length + static_cast<int64_t>(step.tokens.size()),
                static_cast<int64_t>(step.cache->blocks.size()) * KvCache::kBlockTokens);
      for (const int32_t token : step.tokens.last(static_cast<size_t>(step.logits))) {
        at::Tensor one = at::zeros({kVocab});
        one[(token + 1) % kVocab] = 20.0F;
        logits.push_back(one);
      }
    }
    return logits.empty() ? at::Tensor() : at::stack(logits);
  }

 private:
  KvCache cache_;
  std::vector<size_t>* batch_sizes_;
};

/// Counting, and notes what each step brings: tokens in the cache, new ones, and those known in
/// all.
class NotingModel final : public CountingModel {
 public:
  using Step = std::array<int64_t, 3>;
  NotingModel(std::vector<Step>* seen, int64_t step_tokens, int64_t keys_change_after = 0,
              int64_t capacity = 1000)
      : CountingModel(capacity),
        seen_(seen),
        step_tokens_(step_tokens),
        keys_change_after_(keys_change_after) {}
  int64_t step_tokens() const override { return step_tokens_; }
  int64_t keys_change_after() const override { return keys_change_after_; }
  at::Tensor step(std::span<const SequenceStep> steps) override {
    for (const SequenceStep& step : steps) {
      seen_->push_back(
          {step.cache->length, static_cast<int64_t>(step.tokens.size()), step.known_tokens});
    }
    return CountingModel::step(steps);
  }

 private:
  std::vector<Step>* seen_;
  int64_t step_tokens_, keys_change_after_;
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

inline SequenceRequest greedy(std::vector<int32_t> prompt, int64_t max_tokens) {
  SequenceRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

inline std::vector<int32_t> counting(int32_t from, int64_t n) {
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

}  // namespace lorry::generate
