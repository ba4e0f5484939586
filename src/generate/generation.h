// What a request asks of the model and what comes back, token by token.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "generate/sampling.h"

namespace lorry::model {
class LoraAdapter;
}

namespace lorry::generate {

/// One sequence to generate.
struct SequenceRequest {
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  std::vector<std::pair<int32_t, float>> logit_bias;
  uint64_t seed = 0;
  int64_t max_tokens = 16;        ///< at least 1; 0 where `score_prompt` asks for no more
  std::vector<int32_t> stop_ids;  ///< generation ends with one of these, which is part of the count
  int64_t top_logprobs = -1;      ///< -1: none; 0: of the token alone
  /// Whether the prompt's tokens are scored too, each but the first given those before it.
  bool score_prompt = false;
  /// null: the base model. A sequence keeps the adapter it began with: one that is trained further
  /// or replaced meanwhile is another object.
  std::shared_ptr<const model::LoraAdapter> adapter;
  std::string cache_salt;  ///< only sequences of the same salt share what was computed of a prefix
};

enum class FinishReason { kNone, kStop, kLength, kCancelled, kError };

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;  ///< under the model's own distribution, before temperature and penalties
};

/// A token in its place, and what the model expected there.
struct TokenScore {
  int32_t id = -1;
  float logprob = 0;
  std::vector<TokenLogprob> top;  ///< the top_logprobs most probable, the most probable first
};

/// One step of one sequence. `logprob` and `top` are set if top_logprobs >= 0; an `id` of -1 is no
/// token (cancelled, failed, a part of the prompt).
struct TokenEvent : TokenScore {
  bool is_stop = false;  ///< one of stop_ids: no text
  FinishReason finish = FinishReason::kNone;
  std::vector<TokenScore> prompt;  ///< with score_prompt: its next tokens; they precede `id`
  int64_t cached_tokens = 0;       ///< of the prompt, that were found in the cache
  std::string error;               ///< with kError
};

}  // namespace lorry::generate
