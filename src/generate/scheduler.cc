#include "generate/scheduler.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "base/first_line.h"
#include "base/log.h"
#include "generate/model_queue.h"

namespace lorry::generate {

struct Scheduler::Impl {
  SchedulerOptions options;
  std::vector<std::unique_ptr<ModelQueue>> queues;
  std::thread thread;
  mutable std::mutex mutex;
  std::condition_variable wake;
  std::vector<RunningPtr> inbox;  // guarded by mutex
  bool stopping = false;          // guarded by mutex
  std::string failure;            // guarded by mutex

  bool idle() const {
    return std::all_of(queues.begin(), queues.end(),
                       [](const auto& queue) { return queue->idle(); });
  }
  int64_t in_inbox(size_t model) const {
    return std::count_if(inbox.begin(), inbox.end(),
                         [&](const RunningPtr& sequence) { return sequence->model == model; });
  }
  /// How many sequences of a model may join those that run or wait.
  int64_t room(size_t model) const {
    const QueueState state = queues[model]->state();
    const int64_t places = options.max_num_seqs - state.running;
    return places + options.max_queued - state.waiting - in_inbox(model);
  }

  /// Waits for work; false at the end.
  bool collect() {
    std::unique_lock lock(mutex);
    wake.wait(lock, [this] { return stopping || !inbox.empty() || !idle(); });
    take_inbox();
    return !stopping;
  }
  void take_inbox() {
    for (RunningPtr& sequence : inbox) queues[sequence->model]->add(std::move(sequence));
    inbox.clear();
  }

  void run() {
    const c10::InferenceMode guard;
    TokenEvent end;
    end.finish = FinishReason::kCancelled;
    try {
      run_steps();
    } catch (const std::exception& e) {
      end.finish = FinishReason::kError;
      end.error = fmt::format("the engine failed and answers no more; restart the server: {}",
                              first_line(e.what()));
      log::error("{}", end.error);
      std::lock_guard lock(mutex);
      failure = end.error;
      take_inbox();
    }
    for (auto& queue : queues) queue->end_all(end);
  }

  void run_steps() {
    auto reported = std::chrono::steady_clock::now();
    int64_t tokens = 0;
    while (collect()) {
      size_t queued = 0, running = 0;
      for (auto& queue : queues) {
        if (!queue->idle()) tokens += queue->step();
        queued += queue->waiting();
        running += queue->running();
      }
      const auto now = std::chrono::steady_clock::now();
      const double seconds = std::chrono::duration<double>(now - reported).count();
      if (seconds < 1) continue;
      log::debug("{} running, {} waiting, {:.0f} tokens/s", running, queued,
                 static_cast<double>(tokens) / seconds);
      reported = now;
      tokens = 0;
    }
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
  const int64_t capacity = impl_->queues.at(model)->capacity_tokens();
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
    if (!impl_->failure.empty()) return cancelled(impl_->failure);
    if (impl_->stopping) return cancelled("the server is stopping");
    if (impl_->room(model) <= 0)
      return unavailable(
          fmt::format("the server is busy: {} requests wait already; try again later",
                      impl_->options.max_queued));
    impl_->inbox.push_back(std::move(sequence));
  }
  impl_->wake.notify_one();
  return ticket;
}

QueueState Scheduler::state(size_t model) const {
  QueueState out = impl_->queues.at(model)->state();
  std::lock_guard lock(impl_->mutex);
  out.waiting += impl_->in_inbox(model);
  return out;
}

std::string Scheduler::failure() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->failure;
}

}  // namespace lorry::generate
