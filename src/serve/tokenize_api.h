// Texts to token ids and back over HTTP, in the form of vLLM's /tokenize and /detokenize.
#pragma once

#include <string>
#include <variant>

#include "serve/openai_api.h"
#include "serve/served_models.h"

namespace lorry::serve {

/// {"prompt", "add_special_tokens"} or a chat's {"messages", "tools", ...}; both with
/// "return_token_strs". Returns {"count", "max_model_len", "tokens", "token_strs"} as JSON.
/// A token's string is what it adds to the text.
std::variant<std::string, ApiError> tokenize(const Json& body, const ServedModel& model);

/// {"tokens"}. Returns {"prompt"}, special tokens included.
std::variant<std::string, ApiError> detokenize(const Json& body, const ServedModel& model);

}  // namespace lorry::serve
