#include "generate/step_rows.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>

namespace lorry::generate {

int64_t StepRows::add(Running& sequence) {
  const int64_t to_score = sequence.to_score();
  const bool last = sequence.step_tokens == sequence.pending();
  for (int64_t i = 0; i < to_score; ++i) {
    scored_rows_.push_back(rows_ + i);
    scoring_.push_back({sequence.request.prompt[static_cast<size_t>(sequence.scored + i)],
                        std::max<int64_t>(sequence.request.top_logprobs, 0)});
  }
  const int64_t ends = last ? 1 + sequence.drafts : 0;
  const int64_t samples = sequence.request.max_tokens > 0 ? ends : 0;
  for (int64_t i = 0; i < samples; ++i) {
    const auto known = static_cast<size_t>(sequence.length() + i);
    sampled_rows_.push_back(rows_ + to_score + i);
    sampling_.push_back({&sequence.request, std::span(sequence.tokens).first(known), &sequence.rng,
                         i < sequence.drafts ? sequence.tokens[known] : -1});
  }
  of_sequence_.emplace_back(to_score, samples);
  rows_ += to_score + ends;
  return to_score + ends;
}

std::vector<std::vector<TokenEvent>> StepRows::events(const at::Tensor& logits) const {
  std::vector<std::vector<TokenEvent>> out;
  std::vector<TokenEvent> sampled;
  std::vector<TokenScore> scores;
  if (!sampling_.empty()) sampled = sample_rows(pick(logits, sampled_rows_), sampling_);
  if (!scoring_.empty()) scores = score_rows(pick(logits, scored_rows_), scoring_);
  auto next_sampled = sampled.begin();
  auto next_score = scores.begin();
  for (const auto& [to_score, samples] : of_sequence_) {
    std::vector<TokenEvent> events(1);
    if (samples > 0) events[0] = std::move(*next_sampled);
    for (int64_t i = 1; i < samples && next_sampled[i].id >= 0; ++i) {
      events.push_back(std::move(next_sampled[i]));
    }
    next_sampled += samples;
    for (int64_t i = 0; i < to_score; ++i, ++next_score) {
      if (std::isnan(next_score->logprob)) events[0] = no_logit();
      events[0].prompt.push_back(std::move(*next_score));
    }
    out.push_back(std::move(events));
  }
  return out;
}

at::Tensor StepRows::pick(const at::Tensor& logits, const std::vector<int64_t>& rows) const {
  if (static_cast<int64_t>(rows.size()) == rows_) return logits;
  return logits.index_select(0, at::tensor(rows, at::kLong).to(logits.device()));
}

}  // namespace lorry::generate
