#include "generate/model_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <functional>

#include "base/first_line.h"
#include "base/log.h"
#include "generate/step_rows.h"

namespace lorry::generate {
namespace {

/// The tokens of a prompt, or of what is left of it, that this step computes.
void assign(Running& sequence, StepBudget& budget) {
  sequence.step_tokens = std::clamp<int64_t>(budget.tokens, 0, sequence.pending());
  if (sequence.is_scoring()) {
    sequence.step_tokens = std::min(sequence.step_tokens, budget.scored);
    budget.scored -= sequence.step_tokens;
  }
  budget.tokens -= sequence.step_tokens;
}

/// Whether the first `count` tokens of both are the same; the last block first, where they differ
/// most often.
bool begin_alike(const Running& a, const Running& b, int64_t count) {
  if (std::min(a.length(), b.length()) < count) return false;
  const int64_t last = std::max<int64_t>(count - KvCache::kBlockTokens, 0);
  const auto equal = [&](int64_t from, int64_t to) {
    return std::equal(a.tokens.begin() + from, a.tokens.begin() + to, b.tokens.begin() + from);
  };
  return equal(last, count) && equal(0, last);
}

/// Whether guesses came true, of drafts as far as they were reached.
void learn_acceptance(Running& sequence, const std::vector<TokenEvent>& events) {
  constexpr double kRate = 0.1;
  const auto learn = [&](bool came_true) {
    sequence.acceptance += kRate * ((came_true ? 1 : 0) - sequence.acceptance);
  };
  if (sequence.drafts == 0) {
    if (sequence.guess >= 0 && events[0].id >= 0) learn(events[0].id == sequence.guess);
  } else {
    for (size_t i = 0; i < std::min(events.size(), static_cast<size_t>(sequence.drafts)); ++i) {
      learn(events[i].id == sequence.tokens[static_cast<size_t>(sequence.length()) + i]);
    }
  }
  sequence.guess = -1;
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

ModelQueue::ModelQueue(std::unique_ptr<StepModel> model, const SchedulerOptions& options)
    : model_(std::move(model)),
      options_(options),
      prefixes_(model_->cache(), options.enable_prefix_caching) {}

void ModelQueue::add(RunningPtr sequence) {
  waiting_.push_back(std::move(sequence));
  publish_state();
}

int64_t ModelQueue::step() {
  const int64_t computed = compute_step();
  publish_state();
  return computed;
}

QueueState ModelQueue::state() const {
  return {published_running_, published_waiting_, published_used_, prefix_queries_,
          prefix_hits_,       draft_tokens_,      accepted_tokens_};
}

void ModelQueue::end_all(const TokenEvent& event) {
  for (auto& sequence : running_) {
    if (sequence->on_token) end(*sequence, event);  // else it has ended in the step that failed
  }
  for (auto& sequence : waiting_) end(*sequence, event);
  running_.clear();
  waiting_.clear();
  publish_state();
}

int64_t ModelQueue::compute_step() {
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

void ModelQueue::publish_state() {
  published_running_ = static_cast<int64_t>(running_.size());
  published_waiting_ = static_cast<int64_t>(waiting_.size());
  published_used_ = 1 - static_cast<double>(prefixes_.free_tokens()) /
                            static_cast<double>(std::max<int64_t>(capacity_tokens(), 1));
}

/// Decides how many tokens each sequence brings to the step: first those that decode, then
/// prompts.
void ModelQueue::schedule() {
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
  for (auto next = waiting_.begin();
       !preempted && next != waiting_.end() && budget.tokens > 0 &&
       static_cast<int64_t>(running_.size()) < options_.max_num_seqs;) {
    attach_prefix(**next);
    if (is_prefix_coming(**next)) {
      prefixes_.release((*next)->cache);
      ++next;
      continue;
    }
    if (!start(**next, budget)) break;
    running_.push_back(std::move(*next));
    next = waiting_.erase(next);
  }
  if (options_.speculation.num_speculative_tokens > 0) draft(budget.tokens);
}

/// Gives the sequences drafts to verify in a step that computes no prompts.
void ModelQueue::draft(int64_t budget) {
  const bool all_decode = std::all_of(running_.begin(), running_.end(),
                                      [](const RunningPtr& s) { return s->pending() == 1; });
  if (!all_decode) return;
  std::vector<std::vector<int32_t>> found;
  for (const RunningPtr& sequence : running_) {
    found.push_back(look_up(sequence->tokens, options_.speculation));
    sequence->guess = found.back().empty() ? -1 : found.back()[0];
  }
  const std::vector<int64_t> chosen = choose_drafts(found, budget);
  for (size_t i = 0; i < running_.size(); ++i) {
    Running& sequence = *running_[i];
    if (chosen[i] == 0 || !prefixes_.reserve(sequence.cache, sequence.length() + chosen[i]))
      continue;
    sequence.tokens.insert(sequence.tokens.end(), found[i].begin(), found[i].begin() + chosen[i]);
    sequence.drafts = chosen[i];
  }
}

/// How many of the drafts of each sequence that runs are worth it.
std::vector<int64_t> ModelQueue::choose_drafts(const std::vector<std::vector<int32_t>>& found,
                                               int64_t budget) const {
  const int64_t limit = model_->keys_change_after();
  std::vector<DraftPolicy::Candidate> candidates;
  for (size_t i = 0; i < running_.size(); ++i) {
    const Running& sequence = *running_[i];
    // The token after the last draft must be one that is asked for, and be computed with the keys
    // that it has when it comes alone.
    int64_t most = sequence.request.max_tokens - sequence.generated() - 1;
    if (limit > 0 && sequence.length() <= limit) most = std::min(most, limit - sequence.length());
    const auto drafts = static_cast<int64_t>(found[i].size());
    candidates.push_back({sequence.acceptance, std::clamp<int64_t>(most, 0, drafts)});
  }
  return draft_policy_.choose(candidates, budget);
}

/// False, and the sequence is as it was, if the cache has no room for it.
bool ModelQueue::start(Running& sequence, StepBudget& budget) {
  // The whole prompt at once, and a token to go on with, so that only answers can run short.
  if (!prefixes_.reserve(sequence.cache,
                         sequence.length() + (sequence.request.max_tokens > 0 ? 1 : 0))) {
    prefixes_.release(sequence.cache);
    return false;
  }
  count_prefix(sequence);
  assign(sequence, budget);
  return true;
}

/// Begins a sequence that holds no blocks with those that are known.
void ModelQueue::attach_prefix(Running& sequence) {
  const int64_t limit = model_->keys_change_after();
  const int variant = limit > 0 && sequence.length() > limit ? 1 : 0;
  prefixes_.begin(sequence.cache, prefixes_.root(sequence.request.adapter, variant),
                  sequence.request.cache_salt, sequence.tokens, sequence.reusable());
}

/// Whether a sequence that runs is about to compute more of what this one begins with: then this
/// one waits and has it for nothing.
bool ModelQueue::is_prefix_coming(const Running& sequence) const {
  const int64_t end = sequence.cache.length + KvCache::kBlockTokens;
  if (!options_.enable_prefix_caching || end > sequence.reusable()) return false;
  return std::any_of(running_.begin(), running_.end(), [&](const RunningPtr& other) {
    return other->pending() > 1 && other->cache.length < end &&
           other->cache.root == sequence.cache.root &&
           other->request.cache_salt == sequence.request.cache_salt &&
           begin_alike(*other, sequence, end);
  });
}

void ModelQueue::count_prefix(Running& sequence) {
  if (sequence.cached_tokens >= 0) return;  // it was preempted
  sequence.cached_tokens = sequence.cache.length;
  prefix_queries_ += sequence.request.prompt.size();
  prefix_hits_ += static_cast<uint64_t>(sequence.cached_tokens);
}

/// Reserves the next token of all that run; where the cache is full, the youngest go back to the
/// waiting ones. Returns whether any did.
bool ModelQueue::reserve_running() {
  bool preempted = false;
  for (size_t i = 0; i < running_.size(); ++i) {
    Running& sequence = *running_[i];
    while (!prefixes_.reserve(sequence.cache, sequence.length())) {
      preempted = true;
      const bool itself = i + 1 == running_.size();
      preempt_youngest();
      if (itself) return true;
    }
  }
  return preempted;
}

void ModelQueue::preempt_youngest() {
  RunningPtr sequence = std::move(running_.back());
  running_.pop_back();
  prefixes_.release(sequence->cache);
  waiting_.push_front(std::move(sequence));
}

/// Computes the step of these sequences. False, and nothing has changed, if the model throws; a
/// sequence that was alone then ends with the error. Throws on if the device has failed.
bool ModelQueue::try_compute(const std::vector<Running*>& sequences, int64_t& computed) {
  try {
    computed += compute(sequences);
    return true;
  } catch (const std::exception& e) {
    log::error("a step of the model failed: {}", first_line(e.what()));
    if (!model_->device_works()) throw;
    for (Running* sequence : sequences) sequence->drop_drafts();
    if (sequences.size() > 1) return false;
    TokenEvent event;
    event.finish = FinishReason::kError;
    event.error = fmt::format("the model failed: {}", first_line(e.what()));
    end(*sequences[0], std::move(event));
    return false;
  }
}

int64_t ModelQueue::compute(std::vector<Running*> order) {
  // Sequences of one adapter side by side: few segments to compute.
  std::stable_sort(order.begin(), order.end(), [](const Running* a, const Running* b) {
    return std::less<>()(a->request.adapter.get(), b->request.adapter.get());
  });
  std::vector<SequenceStep> steps;
  StepRows rows;
  int64_t computed = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (Running* sequence : order) {
    const auto position = static_cast<size_t>(sequence->cache.length);
    const int64_t count = sequence->step_tokens + sequence->drafts;
    steps.push_back({&sequence->cache,
                     std::span(sequence->tokens).subspan(position, static_cast<size_t>(count)),
                     sequence->request.adapter, rows.add(*sequence), sequence->length()});
    computed += count;
  }
  const at::Tensor logits = model_->step(steps);
  std::vector<std::vector<TokenEvent>> events = rows.events(logits);
  const bool all_decode =
      std::all_of(order.begin(), order.end(), [](const Running* s) { return s->pending() == 1; });
  if (all_decode) draft_policy_.observe(computed, seconds_since(begin));
  // Nothing throws from here on.
  for (size_t i = 0; i < order.size(); ++i) take_events(*order[i], std::move(events[i]));
  return computed;
}

/// Moves the sequence on by what the step gave: the tokens it computed, the drafts that came true.
void ModelQueue::take_events(Running& sequence, std::vector<TokenEvent> events) {
  const bool last = sequence.step_tokens == sequence.pending();
  const int64_t drafted = sequence.drafts, accepted = static_cast<int64_t>(events.size()) - 1;
  sequence.cache.length += sequence.step_tokens + accepted;
  sequence.scored += static_cast<int64_t>(events[0].prompt.size());
  prefixes_.extend(sequence.cache, sequence.request.cache_salt, sequence.tokens);
  draft_tokens_ += static_cast<uint64_t>(drafted);
  accepted_tokens_ += static_cast<uint64_t>(accepted);
  learn_acceptance(sequence, events);
  sequence.drop_drafts();
  if (!last && events[0].prompt.empty()) return;
  for (TokenEvent& event : events) {
    deliver(sequence, std::move(event));
    if (!sequence.on_token) return;
  }
  if (drafted > 0) prefixes_.trim(sequence.cache, sequence.length());
}

/// Reports what the step gave; a sequence that is complete loses its `on_token`.
void ModelQueue::deliver(Running& sequence, TokenEvent event) {
  event.cached_tokens = std::max<int64_t>(sequence.cached_tokens, 0);
  if (event.finish == FinishReason::kError) {
    log::error("a sequence failed: {}", event.error);
    return end(sequence, std::move(event));
  }
  if (event.id >= 0) return add_token(sequence, std::move(event));
  // Scores alone.
  if (sequence.pending() > 0) return sequence.on_token(std::move(event));
  event.finish = FinishReason::kLength;
  end(sequence, std::move(event));
}

/// A sequence whose keys change with its length begins anew there.
void ModelQueue::add_token(Running& sequence, TokenEvent event) {
  sequence.tokens.push_back(event.id);
  const auto& stops = sequence.request.stop_ids;
  event.is_stop = std::find(stops.begin(), stops.end(), event.id) != stops.end();
  if (event.is_stop) {
    event.finish = FinishReason::kStop;
  } else if (sequence.generated() >= sequence.request.max_tokens) {
    event.finish = FinishReason::kLength;
  }
  if (event.finish != FinishReason::kNone) return end(sequence, std::move(event));
  const int64_t limit = model_->keys_change_after();
  if (limit > 0 && sequence.length() == limit + 1) {
    prefixes_.release(sequence.cache);
    attach_prefix(sequence);
  }
  sequence.on_token(std::move(event));
}

void ModelQueue::end(Running& sequence, TokenEvent event) {
  prefixes_.release(sequence.cache);
  sequence.on_token(std::move(event));
  sequence.on_token = nullptr;
}

void ModelQueue::drop_cancelled() {
  const auto drop = [this](RunningPtr& sequence) {
    if (!*sequence->cancelled) return false;
    TokenEvent event;
    event.finish = FinishReason::kCancelled;
    end(*sequence, std::move(event));
    return true;
  };
  std::erase_if(running_, drop);
  std::erase_if(waiting_, drop);
}

}  // namespace lorry::generate
