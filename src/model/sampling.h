// From logits to the next token.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <random>

namespace lorry::model {

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

/// logits: (vocab_size), any float dtype. The same seed of `rng` and the same logits give the same
/// token on every machine.
Sample sample(const at::Tensor& logits, const SamplingParams& params, std::mt19937_64& rng);

}  // namespace lorry::model
