// From a checked request to sequences for the scheduler: template, tokens, limits, seeds. Shared by
// the HTTP service and the in-process chat, so that both answer alike.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "generate/generation.h"
#include "serve/openai_api.h"
#include "serve/served_models.h"

namespace lorry::serve {

/// Of ids that the model has no row for; nullopt if it has all. A tokenizer may know more tokens
/// than the embedding has rows. `param`: the field that holds them.
std::optional<ApiError> unknown_id(const ServedModel& model, const std::vector<int32_t>& ids,
                                   const char* param);

/// The prompt's ids, or the error to answer with.
std::variant<std::vector<int32_t>, ApiError> chat_prompt(const ServedModel& model,
                                                         const ChatRequest& request);
std::variant<std::vector<int32_t>, ApiError> completion_prompt(const ServedModel& model,
                                                               const CompletionRequest& request,
                                                               const Prompt& prompt);

/// A prompt as a part of the answer.
struct Echo {
  std::string text;
  std::vector<int64_t> offsets;  ///< of its tokens, in characters; empty unless they are scored
};
/// Empty unless the request asks for it. `ids`: of the prompt.
Echo make_echo(const ServedModel& model, const CompletionRequest& request, const Prompt& prompt,
               const std::vector<int32_t>& ids);

/// Sequence `choice` of a request. `param` is the field that holds the prompt, for the error of one
/// that is too long. max_tokens is cut to what the context leaves.
std::variant<generate::SequenceRequest, ApiError> make_sequence(const ServedModel& model,
                                                                const GenerationOptions& options,
                                                                std::vector<int32_t> prompt,
                                                                int64_t choice, bool chat);

}  // namespace lorry::serve
