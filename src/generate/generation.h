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
  int64_t max_tokens = 16;        ///< at least 1
  std::vector<int32_t> stop_ids;  ///< generation ends with one of these, which is part of the count
  int64_t top_logprobs = -1;      ///< -1: none; 0: of the token alone
  /// null: the base model. A sequence keeps the adapter it began with: one that is trained further
  /// or replaced meanwhile is another object.
  std::shared_ptr<const model::LoraAdapter> adapter;
};

enum class FinishReason { kNone, kStop, kLength, kCancelled, kError };

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;  ///< under the model's own distribution, before temperature and penalties
};

/// One step of one sequence.
struct TokenEvent {
  int32_t id = -1;       ///< -1: no token (cancelled, failed)
  bool is_stop = false;  ///< one of stop_ids: no text
  FinishReason finish = FinishReason::kNone;
  float logprob = 0;              ///< if top_logprobs >= 0
  std::vector<TokenLogprob> top;  ///< most probable first
  std::string error;              ///< with kError
};

}  // namespace lorry::generate
