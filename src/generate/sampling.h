// How the next token is chosen.
#pragma once

#include <cstdint>

namespace lorry::generate {

/// The OpenAI API's sampling parameters with vLLM's additions. Applied in vLLM's order: bias,
/// penalties, temperature, min_p, top_k, top_p.
struct SamplingParams {
  double temperature = 1.0;  ///< divides the logits; 0: always the likeliest token
  double top_p = 1.0;        ///< the fewest likeliest tokens that hold this share of what is left
  int64_t top_k = 0;         ///< the k likeliest tokens; 0: all
  double min_p = 0.0;        ///< tokens at least this fraction as likely as the likeliest
  /// Divides the positive and multiplies the negative logits of tokens in prompt or answer.
  double repetition_penalty = 1.0;
  double frequency_penalty = 0.0;  ///< subtracted once for each time the answer holds the token
  double presence_penalty = 0.0;   ///< subtracted once if the answer holds the token
};

}  // namespace lorry::generate
