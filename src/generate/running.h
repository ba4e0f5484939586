// A sequence while the scheduler works on it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "generate/generation.h"
#include "generate/prefix_cache.h"
#include "generate/scheduler.h"

namespace lorry::generate {

/// One sequence, from submission to its last token. Touched by the scheduler's thread alone, but
/// for the ticket.
struct Running {
  SequenceRequest request;
  Scheduler::OnToken on_token;
  Scheduler::Ticket cancelled;
  size_t model = 0;
  std::vector<int32_t> tokens;  // prompt, answer and drafts
  int64_t drafts = 0;           // guesses at the end of `tokens` that the current step verifies
  int32_t guess = -1;           // what look-up expects next, whether it is verified or not
  double acceptance = 0.5;      // share of such guesses that came true lately
  PrefixCache::Sequence cache;
  std::mt19937_64 rng;
  int64_t step_tokens = 0;  // that the current engine step computes
  int64_t scored = 1;       // tokens of the prompt whose scores are known or, the first, not asked
  int64_t cached_tokens =
      -1;  // of the prompt, found in the cache at its first start; -1: not started

  int64_t length() const { return static_cast<int64_t>(tokens.size()) - drafts; }
  void drop_drafts() {
    tokens.resize(static_cast<size_t>(length()));
    drafts = 0;
  }
  int64_t pending() const { return length() - cache.length; }
  int64_t generated() const { return length() - static_cast<int64_t>(request.prompt.size()); }
  bool is_scoring() const {
    return request.score_prompt && scored < static_cast<int64_t>(request.prompt.size());
  }
  /// How many of its first tokens need not be computed if the cache holds them: neither the last
  /// one nor those whose scores are still to come.
  int64_t reusable() const { return (is_scoring() ? scored : length()) - 1; }
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

}  // namespace lorry::generate
