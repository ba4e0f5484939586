// From a batch of logits to one event for each sequence: penalties, bias, log-probabilities.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "generate/generation.h"

namespace lorry::generate {

/// What sampling needs to know of one sequence.
struct SamplingRow {
  const SequenceRequest* request;
  std::span<const int32_t> tokens;  ///< prompt and what was generated
  std::mt19937_64* rng;
};

/// logits: (R, vocab_size), one row for each of `rows`. Fills id, logprob and top.
/// Repetition penalty counts prompt and answer, presence and frequency the answer alone (as vLLM).
std::vector<TokenEvent> sample_rows(const at::Tensor& logits, std::span<const SamplingRow> rows);

}  // namespace lorry::generate
