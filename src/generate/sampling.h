// From logits to the next token.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <random>
#include <span>

namespace lorry::generate {

/// The OpenAI API's sampling parameters with vLLM's additions. temperature 0 is greedy.
struct SamplingParams {
  double temperature = 1.0;
  double top_p = 1.0;
  int64_t top_k = 0;  ///< 0: all
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  double frequency_penalty = 0.0;
  double presence_penalty = 0.0;
};

struct Sample {
  int32_t id = 0;
  float logprob = 0;  ///< under the model's own distribution
};

/// What the penalties look at. repetition_penalty counts prompt and output, as `transformers` and
/// vLLM do; frequency_penalty and presence_penalty the output alone, as the OpenAI API does.
struct TokenHistory {
  std::span<const int32_t> prompt;
  std::span<const int32_t> output;
};

/// logits: (vocab_size), any float dtype. The same seed of `rng` and the same logits give the same
/// token on every machine. Order, as in vLLM: penalties, temperature, min_p, top_k, top_p. Among
/// equal logits the lowest id wins.
Sample sample(const at::Tensor& logits, const SamplingParams& params, std::mt19937_64& rng,
              const TokenHistory& history = {});

}  // namespace lorry::generate
