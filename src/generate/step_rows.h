// Which rows of an engine step's logits belong to which sequence, and what is made of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "generate/running.h"
#include "generate/sampler.h"

namespace lorry::generate {

/// The rows of one step's logits: for each sequence those that score its prompt, then the one that
/// the next token is drawn from, and one more for each of its drafts.
class StepRows {
 public:
  /// The rows of the sequence's step.
  int64_t add(Running& sequence);
  /// For each sequence at least one event, without token and scores where the step gave it none;
  /// with drafts one for each token that it got.
  std::vector<std::vector<TokenEvent>> events(const at::Tensor& logits) const;

 private:
  at::Tensor pick(const at::Tensor& logits, const std::vector<int64_t>& rows) const;

  int64_t rows_ = 0;
  std::vector<int64_t> scored_rows_, sampled_rows_;
  std::vector<ScoringRow> scoring_;
  std::vector<SamplingRow> sampling_;
  std::vector<std::pair<int64_t, int64_t>> of_sequence_;  // rows that score, that are drawn from
};

}  // namespace lorry::generate
