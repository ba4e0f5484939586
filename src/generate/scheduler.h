// Continuous batching: one thread steps the models, sequences join and leave at every step.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "generate/generation.h"
#include "generate/prompt_lookup.h"
#include "generate/step_model.h"

namespace lorry::generate {

struct SchedulerOptions {
  int64_t max_num_seqs = 64;
  /// Tokens of one engine step: those of running sequences first, the rest for prompts, in chunks.
  /// 0: as many as suit the model's device.
  int64_t max_step_tokens = 0;
  /// Sequences of a model that wait for a place; more are refused.
  int64_t max_queued = 4096;
  /// Whether sequences that begin alike share what was computed of it, also after one has ended.
  bool enable_prefix_caching = true;
  /// Drafts that a step verifies beside the token it computes anyway. They change neither what is
  /// answered nor the distribution it is drawn from.
  SpeculationOptions speculation;
};

/// What one model's sequences do at the moment.
struct QueueState {
  int64_t running = 0, waiting = 0;
  double cache_used = 0;         ///< share of the KV cache that sequences hold, from 0 to 1
  uint64_t prefix_queries = 0;   ///< tokens of all prompts so far
  uint64_t prefix_hits = 0;      ///< of those, found in the cache
  uint64_t draft_tokens = 0;     ///< verified so far
  uint64_t accepted_tokens = 0;  ///< of those, that came true
};

/// The owner of the models. An engine step takes all running sequences of a model and chunks of
/// waiting prompts. Sequences start in the order of their arrival. When the cache is full, the
/// youngest is preempted: its cache blocks are released and it is computed again later. A sequence
/// whose beginning another one is computing lets those after it start first, until that is done.
///
/// `add_model` before `start`; then `submit` and tickets from any thread.
class Scheduler {
 public:
  using OnToken = std::function<void(TokenEvent)>;
  /// Set to true to give up a sequence.
  using Ticket = std::shared_ptr<std::atomic<bool>>;

  explicit Scheduler(SchedulerOptions options);
  ~Scheduler();

  /// The index by which `submit` names it.
  size_t add_model(std::unique_ptr<StepModel> model);
  void start();
  /// Ends all sequences as cancelled, then the thread.
  void stop();

  /// `on_token` is called on the scheduler's thread, last with a `finish` that is not kNone; it
  /// must not block. Unavailable if too many wait; invalid input if the sequence could never fit;
  /// cancelled if the scheduler stops or has failed.
  Result<Ticket> submit(size_t model, SequenceRequest request, OnToken on_token);

  /// As it was after the last engine step. From any thread.
  QueueState state(size_t model) const;
  /// What ended the thread before `stop`: a device that computes no more, or an error of our own.
  /// All sequences have ended with it. Empty while all is well. From any thread.
  std::string failure() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lorry::generate
