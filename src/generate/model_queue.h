// The sequences of one model: who is stepped, who waits, who is preempted.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "generate/prefix_cache.h"
#include "generate/prompt_lookup.h"
#include "generate/running.h"
#include "generate/scheduler.h"
#include "generate/step_model.h"

namespace lorry::generate {

/// What one engine step may compute.
struct StepBudget {
  /// Tokens that one engine step scores: their logits are in memory at the same time.
  static constexpr int64_t kMostScored = 512;

  int64_t tokens = 0;
  int64_t scored = kMostScored;
};

/// Used by the scheduler's thread alone, but for `state` and `capacity_tokens`.
class ModelQueue {
 public:
  /// `options` must outlive it.
  ModelQueue(std::unique_ptr<StepModel> model, const SchedulerOptions& options);

  int64_t capacity_tokens() const { return prefixes_.capacity_tokens(); }
  void add(RunningPtr sequence);
  bool idle() const { return running_.empty() && waiting_.empty(); }
  size_t running() const { return running_.size(); }
  size_t waiting() const { return waiting_.size(); }

  /// Returns the number of tokens computed. Throws where it can't go on: when the device has
  /// failed.
  int64_t step();
  /// As it was after the last step.
  QueueState state() const;
  /// Ends all sequences so.
  void end_all(const TokenEvent& event);

 private:
  int64_t compute_step();
  void publish_state();

  void schedule();
  bool start(Running& sequence, StepBudget& budget);
  void attach_prefix(Running& sequence);
  bool is_prefix_coming(const Running& sequence) const;
  void count_prefix(Running& sequence);
  void draft(int64_t budget);
  std::vector<int64_t> choose_drafts(const std::vector<std::vector<int32_t>>& found,
                                     int64_t budget) const;
  bool reserve_running();
  void preempt_youngest();

  bool try_compute(const std::vector<Running*>& sequences, int64_t& computed);
  int64_t compute(std::vector<Running*> order);
  void deliver(Running& sequence, TokenEvent event);
  void take_events(Running& sequence, std::vector<TokenEvent> events);
  void add_token(Running& sequence, TokenEvent event);
  void end(Running& sequence, TokenEvent event);
  void drop_cancelled();

  std::unique_ptr<StepModel> model_;
  const SchedulerOptions& options_;
  PrefixCache prefixes_;
  std::vector<RunningPtr> running_;  // oldest first
  std::deque<RunningPtr> waiting_;   // next first
  std::atomic<int64_t> published_running_{0}, published_waiting_{0};
  std::atomic<double> published_used_{0};
  std::atomic<uint64_t> prefix_queries_{0}, prefix_hits_{0};
  DraftPolicy draft_policy_;
  std::atomic<uint64_t> draft_tokens_{0}, accepted_tokens_{0};
};

}  // namespace lorry::generate
