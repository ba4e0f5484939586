#include "generate/scheduler.h"

#include <ATen/Functions.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "base/log.h"
#include "generate/sampler.h"

namespace lorry::generate {
namespace {

/// One sequence, from submission to its last token. Touched by the scheduler's thread alone, but
/// for the ticket.
struct Running {
  SequenceRequest request;
  Scheduler::OnToken on_token;
  Scheduler::Ticket cancelled;
  size_t model = 0;
  std::vector<int32_t> tokens;  // prompt and answer
  KvCache::Sequence cache;
  std::mt19937_64 rng;
  int64_t step_tokens = 0;  // that the engine step in hand computes
  int64_t scored = 1;       // tokens of the prompt whose scores are known or, the first, not asked

  int64_t pending() const { return static_cast<int64_t>(tokens.size()) - cache.length; }
  int64_t generated() const { return static_cast<int64_t>(tokens.size() - request.prompt.size()); }
  bool is_scoring() const {
    return request.score_prompt && scored < static_cast<int64_t>(request.prompt.size());
  }
  /// How many tokens of the prompt this step scores: each computed token gives the score of the
  /// next. Those that were scored before a preemption are not scored again.
  int64_t to_score() const {
    if (!is_scoring()) return 0;
    const int64_t end =
        std::min(cache.length + step_tokens + 1, static_cast<int64_t>(request.prompt.size()));
    return std::max<int64_t>(0, end - std::max(cache.length + 1, scored));
  }
};
using RunningPtr = std::unique_ptr<Running>;

/// Tokens that one engine step scores: their logits are in memory at the same time.
constexpr int64_t kMostScored = 512;

/// What one engine step may compute.
struct StepBudget {
  int64_t tokens = 0;
  int64_t scored = kMostScored;
};

/// The rows of one step's logits: for each sequence those that score its prompt, then the one that
/// the next token is drawn from.
class StepRows {
 public:
  /// The rows of the sequence's step.
  int64_t add(Running& sequence) {
    const int64_t to_score = sequence.to_score();
    const bool last = sequence.step_tokens == sequence.pending();
    for (int64_t i = 0; i < to_score; ++i) {
      scored_rows_.push_back(rows_ + i);
      scoring_.push_back({sequence.request.prompt[static_cast<size_t>(sequence.scored + i)],
                          std::max<int64_t>(sequence.request.top_logprobs, 0)});
    }
    const bool samples = last && sequence.request.max_tokens > 0;
    if (samples) {
      sampled_rows_.push_back(rows_ + to_score);
      sampling_.push_back({&sequence.request, sequence.tokens, &sequence.rng});
    }
    of_sequence_.emplace_back(to_score, samples);
    const int64_t rows = to_score + (last ? 1 : 0);
    rows_ += rows;
    return rows;
  }

  /// One event for each sequence; without token and scores where the step gave it none.
  std::vector<TokenEvent> events(const at::Tensor& logits) const {
    std::vector<TokenEvent> sampled, out;
    std::vector<TokenScore> scores;
    if (!sampling_.empty()) sampled = sample_rows(pick(logits, sampled_rows_), sampling_);
    if (!scoring_.empty()) scores = score_rows(pick(logits, scored_rows_), scoring_);
    auto next_sampled = sampled.begin();
    auto next_score = scores.begin();
    for (const auto& [to_score, samples] : of_sequence_) {
      TokenEvent event = samples ? std::move(*next_sampled++) : TokenEvent();
      for (int64_t i = 0; i < to_score; ++i, ++next_score) {
        if (std::isnan(next_score->logprob)) event = no_logit();
        event.prompt.push_back(std::move(*next_score));
      }
      out.push_back(std::move(event));
    }
    return out;
  }

 private:
  at::Tensor pick(const at::Tensor& logits, const std::vector<int64_t>& rows) const {
    if (static_cast<int64_t>(rows.size()) == rows_) return logits;
    return logits.index_select(0, at::tensor(rows, at::kLong).to(logits.device()));
  }

  int64_t rows_ = 0;
  std::vector<int64_t> scored_rows_, sampled_rows_;
  std::vector<ScoringRow> scoring_;
  std::vector<SamplingRow> sampling_;
  std::vector<std::pair<int64_t, bool>> of_sequence_;  // rows that score; whether one is drawn from
};

/// The sequences of one model.
class ModelQueue {
 public:
  ModelQueue(std::unique_ptr<StepModel> model, const SchedulerOptions& options)
      : model_(std::move(model)), options_(options) {}

  const StepModel& model() const { return *model_; }
  void add(RunningPtr sequence) { waiting_.push_back(std::move(sequence)); }
  bool idle() const { return running_.empty() && waiting_.empty(); }
  size_t running() const { return running_.size(); }
  size_t waiting() const { return waiting_.size(); }

  /// Returns the number of tokens computed.
  int64_t step() {
    const int64_t computed = compute_step();
    publish_state();
    return computed;
  }

  /// From any thread.
  QueueState state() const { return {published_running_, published_waiting_, published_used_}; }

  void cancel_all() {
    for (auto& sequence : running_) *sequence->cancelled = true;
    for (auto& sequence : waiting_) *sequence->cancelled = true;
    drop_cancelled();
  }

 private:
  int64_t compute_step() {
    drop_cancelled();
    schedule();
    if (running_.empty()) return 0;
    std::vector<Running*> all;
    for (auto& sequence : running_) {
      if (sequence->step_tokens > 0) all.push_back(sequence.get());
    }
    int64_t computed = 0;
    if (!try_compute(all, computed) && all.size() > 1) {
      // Whose fault it was: each alone, so that the others go on.
      for (Running* sequence : all) try_compute({sequence}, computed);
    }
    std::erase_if(running_, [](const RunningPtr& sequence) { return !sequence->on_token; });
    return computed;
  }

  void publish_state() {
    published_running_ = static_cast<int64_t>(running_.size());
    published_waiting_ = static_cast<int64_t>(waiting_.size());
    published_used_ = 1 - static_cast<double>(model_->free_tokens()) /
                              static_cast<double>(std::max<int64_t>(model_->capacity_tokens(), 1));
  }

  static std::string first_line(std::string_view text) {
    return std::string(text.substr(0, text.find('\n')));
  }

  void finish(Running& sequence, TokenEvent event) {
    model_->release(sequence.cache);
    sequence.on_token(std::move(event));
  }

  void drop_cancelled() {
    const auto drop = [this](RunningPtr& sequence) {
      if (!*sequence->cancelled) return false;
      TokenEvent event;
      event.finish = FinishReason::kCancelled;
      finish(*sequence, std::move(event));
      return true;
    };
    std::erase_if(running_, drop);
    std::erase_if(waiting_, drop);
  }

  /// Computes the step of these sequences. False, and nothing has changed, if the model throws; a
  /// sequence that was alone then ends with the error.
  bool try_compute(const std::vector<Running*>& sequences, int64_t& computed) {
    try {
      computed += compute(sequences);
      return true;
    } catch (const std::exception& e) {
      log::error("a step of the model failed: {}", first_line(e.what()));
      if (sequences.size() > 1) return false;
      TokenEvent event;
      event.finish = FinishReason::kError;
      event.error = fmt::format("the model failed: {}", first_line(e.what()));
      finish(*sequences[0], std::move(event));
      sequences[0]->on_token = nullptr;
      return false;
    }
  }

  /// Decides how many tokens each sequence brings to the step: first those that decode, then
  /// prompts.
  void schedule() {
    const bool preempted = reserve_running();
    StepBudget budget{options_.max_step_tokens > 0 ? options_.max_step_tokens
                                                   : model_->step_tokens()};
    for (auto& sequence : running_) {
      sequence->step_tokens = sequence->pending() == 1 ? 1 : 0;
      budget.tokens -= sequence->step_tokens;
    }
    for (auto& sequence : running_) {
      if (sequence->step_tokens == 0) assign(*sequence, budget);
    }
    while (!preempted && budget.tokens > 0 && !waiting_.empty() &&
           static_cast<int64_t>(running_.size()) < options_.max_num_seqs) {
      Running& next = *waiting_.front();
      // The whole prompt at once, and a token to go on with, so that only answers can run short.
      const int64_t tokens =
          static_cast<int64_t>(next.tokens.size()) + (next.request.max_tokens > 0 ? 1 : 0);
      if (!model_->reserve(next.cache, tokens)) break;
      assign(next, budget);
      running_.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
  }

  static void assign(Running& sequence, StepBudget& budget) {
    sequence.step_tokens = std::clamp<int64_t>(budget.tokens, 0, sequence.pending());
    if (sequence.is_scoring()) {
      sequence.step_tokens = std::min(sequence.step_tokens, budget.scored);
      budget.scored -= sequence.step_tokens;
    }
    budget.tokens -= sequence.step_tokens;
  }

  /// Reserves the next token of all that run; where the cache is full, the youngest go back to the
  /// waiting ones. Returns whether any did.
  bool reserve_running() {
    bool preempted = false;
    for (size_t i = 0; i < running_.size(); ++i) {
      Running& sequence = *running_[i];
      while (!model_->reserve(sequence.cache, static_cast<int64_t>(sequence.tokens.size()))) {
        preempted = true;
        const bool itself = i + 1 == running_.size();
        preempt_youngest();
        if (itself) return true;
      }
    }
    return preempted;
  }

  void preempt_youngest() {
    RunningPtr sequence = std::move(running_.back());
    running_.pop_back();
    model_->release(sequence->cache);
    sequence->cache = {};
    waiting_.push_front(std::move(sequence));
  }

  int64_t compute(std::vector<Running*> order) {
    // Sequences of one adapter side by side: few segments to compute.
    std::stable_sort(order.begin(), order.end(), [](const Running* a, const Running* b) {
      return std::less<>()(a->request.adapter.get(), b->request.adapter.get());
    });
    std::vector<SequenceStep> steps;
    StepRows rows;
    int64_t computed = 0;
    for (Running* sequence : order) {
      const auto position = static_cast<size_t>(sequence->cache.length);
      const auto count = static_cast<size_t>(sequence->step_tokens);
      steps.push_back({&sequence->cache, std::span(sequence->tokens).subspan(position, count),
                       sequence->request.adapter, rows.add(*sequence),
                       static_cast<int64_t>(sequence->tokens.size())});
      computed += sequence->step_tokens;
    }
    const at::Tensor logits = model_->step(steps);
    std::vector<TokenEvent> events = rows.events(logits);
    // Nothing throws from here on.
    for (size_t i = 0; i < order.size(); ++i) {
      Running& sequence = *order[i];
      const bool last = sequence.step_tokens == sequence.pending();
      sequence.cache.length += sequence.step_tokens;
      sequence.scored += static_cast<int64_t>(events[i].prompt.size());
      if (last || !events[i].prompt.empty()) deliver(sequence, std::move(events[i]));
    }
    return computed;
  }

  /// Reports what the step gave; a sequence that is complete loses its `on_token`, and one whose
  /// keys change with its length begins anew.
  void deliver(Running& sequence, TokenEvent event) {
    if (event.finish == FinishReason::kError) {
      log::error("a sequence failed: {}", event.error);
      finish(sequence, std::move(event));
      sequence.on_token = nullptr;
      return;
    }
    if (event.id < 0) {  // scores alone
      if (sequence.pending() > 0) return sequence.on_token(std::move(event));
      event.finish = FinishReason::kLength;
      finish(sequence, std::move(event));
      sequence.on_token = nullptr;
      return;
    }
    sequence.tokens.push_back(event.id);
    const auto& stops = sequence.request.stop_ids;
    event.is_stop = std::find(stops.begin(), stops.end(), event.id) != stops.end();
    if (event.is_stop) {
      event.finish = FinishReason::kStop;
    } else if (sequence.generated() >= sequence.request.max_tokens) {
      event.finish = FinishReason::kLength;
    }
    if (event.finish == FinishReason::kNone) {
      const int64_t limit = model_->keys_change_after();
      if (limit > 0 && static_cast<int64_t>(sequence.tokens.size()) == limit + 1) {
        model_->release(sequence.cache);
      }
      return sequence.on_token(std::move(event));
    }
    finish(sequence, std::move(event));
    sequence.on_token = nullptr;
  }

  std::unique_ptr<StepModel> model_;
  const SchedulerOptions& options_;
  std::vector<RunningPtr> running_;  // oldest first
  std::deque<RunningPtr> waiting_;   // next first
  std::atomic<int64_t> published_running_{0}, published_waiting_{0};
  std::atomic<double> published_used_{0};
};

}  // namespace

struct Scheduler::Impl {
  SchedulerOptions options;
  std::vector<std::unique_ptr<ModelQueue>> queues;
  std::thread thread;
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<RunningPtr> inbox;   // guarded by mutex
  bool stopping = false;           // guarded by mutex
  std::atomic<size_t> waiting{0};  // in the inbox and in the queues

  bool idle() const {
    return std::all_of(queues.begin(), queues.end(),
                       [](const auto& queue) { return queue->idle(); });
  }

  /// Waits for work; false at the end.
  bool collect() {
    std::unique_lock lock(mutex);
    wake.wait(lock, [this] { return stopping || !inbox.empty() || !idle(); });
    for (RunningPtr& sequence : inbox) queues[sequence->model]->add(std::move(sequence));
    inbox.clear();
    return !stopping;
  }

  void run() {
    const c10::InferenceMode guard;
    auto reported = std::chrono::steady_clock::now();
    int64_t tokens = 0;
    while (collect()) {
      size_t queued = 0, running = 0;
      for (auto& queue : queues) {
        if (!queue->idle()) tokens += queue->step();
        queued += queue->waiting();
        running += queue->running();
      }
      waiting = queued;
      const auto now = std::chrono::steady_clock::now();
      const double seconds = std::chrono::duration<double>(now - reported).count();
      if (seconds < 1) continue;
      log::debug("{} running, {} waiting, {:.0f} tokens/s", running, queued,
                 static_cast<double>(tokens) / seconds);
      reported = now;
      tokens = 0;
    }
    for (auto& queue : queues) queue->cancel_all();
  }
};

Scheduler::Scheduler(SchedulerOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->options = options;
}
Scheduler::~Scheduler() { stop(); }

size_t Scheduler::add_model(std::unique_ptr<StepModel> model) {
  impl_->queues.push_back(std::make_unique<ModelQueue>(std::move(model), impl_->options));
  return impl_->queues.size() - 1;
}

void Scheduler::start() {
  impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
}

void Scheduler::stop() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->wake.notify_all();
  if (impl_->thread.joinable()) impl_->thread.join();
}

Result<Scheduler::Ticket> Scheduler::submit(size_t model, SequenceRequest request,
                                            OnToken on_token) {
  const int64_t capacity = impl_->queues.at(model)->model().capacity_tokens();
  const int64_t most = static_cast<int64_t>(request.prompt.size()) + request.max_tokens;
  if (most > capacity)
    return invalid_input(fmt::format(
        "{} tokens do not fit in the cache of {} tokens; raise --kv-cache-tokens", most, capacity));
  auto sequence = std::make_unique<Running>();
  sequence->rng.seed(request.seed);
  sequence->tokens = request.prompt;
  sequence->tokens.reserve(static_cast<size_t>(most));
  sequence->request = std::move(request);
  sequence->on_token = std::move(on_token);
  sequence->model = model;
  sequence->cancelled = std::make_shared<std::atomic<bool>>(false);
  Ticket ticket = sequence->cancelled;
  {
    std::lock_guard lock(impl_->mutex);
    if (impl_->stopping) return unavailable("the server is stopping");
    if (impl_->waiting + impl_->inbox.size() >= impl_->options.max_waiting)
      return unavailable(
          fmt::format("{} requests are waiting already; try again later", impl_->waiting.load()));
    impl_->inbox.push_back(std::move(sequence));
  }
  impl_->wake.notify_one();
  return ticket;
}

QueueState Scheduler::state(size_t model) const {
  QueueState out = impl_->queues.at(model)->state();
  std::lock_guard lock(impl_->mutex);
  out.waiting +=
      std::count_if(impl_->inbox.begin(), impl_->inbox.end(),
                    [&](const RunningPtr& sequence) { return sequence->model == model; });
  return out;
}

}  // namespace lorry::generate
