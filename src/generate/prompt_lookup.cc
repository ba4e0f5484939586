#include "generate/prompt_lookup.h"

#include <algorithm>

namespace lorry::generate {
namespace {

/// The last position before `end` that holds `id`; -1 if there is none. In strides that vectorise:
/// most hold none.
int64_t find_last(std::span<const int32_t> tokens, int64_t end, int32_t id) {
  constexpr int64_t kStride = 64;
  for (; end >= kStride; end -= kStride) {
    bool found = false;
    for (int64_t i = end - kStride; i < end; ++i) found |= tokens[static_cast<size_t>(i)] == id;
    if (found) break;
  }
  while (end-- > 0) {
    if (tokens[static_cast<size_t>(end)] == id) return end;
  }
  return -1;
}

/// How many tokens that end at `end` are the last ones of all too, at most `most`.
int64_t matching(std::span<const int32_t> tokens, int64_t end, int64_t most) {
  const int64_t last = static_cast<int64_t>(tokens.size()) - 1;
  int64_t count = 0;
  while (count < most && count <= end &&
         tokens[static_cast<size_t>(end - count)] == tokens[static_cast<size_t>(last - count)]) {
    ++count;
  }
  return count;
}

}  // namespace

std::vector<int32_t> look_up(std::span<const int32_t> tokens, const SpeculationOptions& options) {
  if (tokens.empty()) return {};
  const auto size = static_cast<int64_t>(tokens.size());
  int64_t longest = options.prompt_lookup_min - 1, place = -1;
  for (int64_t at = find_last(tokens, size - 1, tokens.back()); at >= 0;
       at = find_last(tokens, at, tokens.back())) {
    const int64_t length = matching(tokens, at, options.prompt_lookup_max);
    if (length <= longest) continue;
    longest = length;
    place = at;
    if (length == options.prompt_lookup_max) break;
  }
  std::vector<int32_t> drafts;
  if (place < 0) return drafts;
  for (int64_t i = 0; i < options.num_speculative_tokens; ++i) {
    const int64_t from = place + 1 + i;
    drafts.push_back(from < size ? tokens[static_cast<size_t>(from)]
                                 : drafts[static_cast<size_t>(from - size)]);
  }
  return drafts;
}

void DraftPolicy::observe(int64_t rows, double seconds) {
  constexpr double kMemory = 0.98;
  // Another program that takes the processor away says nothing about rows.
  if (weight_ > 0) seconds = std::min(seconds, 4 * seconds_ / weight_);
  const auto r = static_cast<double>(rows);
  for (double* sum : {&weight_, &rows_, &seconds_, &rows_rows_, &rows_seconds_}) *sum *= kMemory;
  weight_ += 1;
  rows_ += r;
  seconds_ += seconds;
  rows_rows_ += r * r;
  rows_seconds_ += r * seconds;
  const double variance = rows_rows_ / weight_ - (rows_ / weight_) * (rows_ / weight_);
  if (variance < 0.1) {
    // Nothing to learn from: back to the first guess, slowly, so that drafts are tried again.
    row_cost_ += 0.005 * (kFirstRowCost - row_cost_);
    return;
  }
  const double slope = (rows_seconds_ / weight_ - rows_ / weight_ * seconds_ / weight_) / variance;
  const double base = (seconds_ - slope * rows_) / weight_;
  constexpr double kLeast = 0.001, kMost = 100;
  row_cost_ = base > 0 ? std::clamp(slope / base, kLeast, kMost) : kMost;
}

std::vector<int64_t> DraftPolicy::choose(std::span<const Candidate> candidates,
                                         int64_t most) const {
  struct Draft {
    double expected;  // that it comes true, and all before it
    size_t sequence;
  };
  std::vector<Draft> drafts;
  for (size_t i = 0; i < candidates.size(); ++i) {
    double expected = 1;
    for (int64_t j = 0; j < candidates[i].drafts; ++j) {
      expected *= candidates[i].acceptance;
      drafts.push_back({expected, i});
    }
  }
  std::stable_sort(drafts.begin(), drafts.end(),
                   [](const Draft& a, const Draft& b) { return a.expected > b.expected; });
  std::vector<int64_t> chosen(candidates.size(), 0);
  auto tokens = static_cast<double>(candidates.size());
  double time = 1 + row_cost_ * tokens;
  for (const Draft& draft : drafts) {
    // One more row pays if it brings more tokens for its time than the step does without it.
    if (most-- <= 0 || draft.expected * time < row_cost_ * tokens) break;
    ++chosen[draft.sequence];
    tokens += draft.expected;
    time += row_cost_;
  }
  return chosen;
}

}  // namespace lorry::generate
