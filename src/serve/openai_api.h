// Requests of the OpenAI API, checked field by field.
//
// Source: https://platform.openai.com/docs/api-reference (chat, completions), with vLLM's additions
// (top_k, min_p, repetition_penalty, ignore_eos, stop_token_ids, return_token_ids,
// chat_template_kwargs, ...). request_fields.h says which fields are read, and which are refused;
// those that are read and of a wrong type are refused by name.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"
#include "generate/sampling.h"

namespace lorry::serve {

/// An error as the API words it.
struct ApiError {
  int status = 400;
  std::string message;
  std::string type = "invalid_request_error";
  std::string param;  ///< the field at fault; empty: null
  std::string code;   ///< empty: null
};
/// {"error": {"message", "type", "param", "code"}}
std::string error_body(const ApiError& error);
ApiError not_found_error(std::string message);
/// A failure of the server, not of the request.
ApiError server_error(int status, std::string message);
/// The OpenAI wording, with code context_length_exceeded.
ApiError context_length_error(int64_t max_model_len, int64_t prompt_tokens, std::string param);

/// What chat and plain completions have in common.
struct GenerationOptions {
  generate::SamplingParams sampling;
  std::optional<uint64_t> seed;
  std::optional<int64_t> max_tokens;  ///< nullopt: the rest of the context
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  std::vector<std::pair<int32_t, float>> logit_bias;
  int64_t n = 1;
  int64_t top_logprobs = -1;  ///< -1: no logprobs
  bool score_prompt = false;  ///< logprobs of the prompt's tokens too
  bool ignore_eos = false;
  bool include_stop = false;  ///< the stop string or token is part of the text
  bool skip_special_tokens = true;
  bool return_token_ids = false;
  bool tokens_as_ids = false;         ///< tokens of logprobs are "token_id:7"
  std::vector<std::string> callable;  ///< names of the tools that an answer may call
  bool one_call = false;              ///< at most one
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;  ///< in each chunk
  std::string cache_salt;         ///< only requests of the same salt share a cached prefix
};

struct ChatRequest : GenerationOptions {
  Json messages;  ///< array of objects; contents are strings or null
  Json tools;     ///< array or null
  Json extra;     ///< object or null: further template variables
  /// Fields that are template variables of the same name: refused where the template has no use of
  /// them.
  std::vector<std::pair<std::string, Json>> template_fields;
};

/// A text, or its token ids.
using Prompt = std::variant<std::string, std::vector<int32_t>>;

struct CompletionRequest : GenerationOptions {
  std::vector<Prompt> prompts;
  bool echo = false;
  bool add_special_tokens = true;
};

/// One JSON object, nested at most 128 deep.
std::variant<Json, ApiError> parse_body(std::string_view body);
/// The "model" field; empty if there is none.
std::variant<std::string, ApiError> requested_model(const Json& body);
/// `defaults`: what the model's generation_config.json says.
std::variant<ChatRequest, ApiError> parse_chat_request(const Json& body,
                                                       const generate::SamplingParams& defaults);
std::variant<CompletionRequest, ApiError> parse_completion_request(
    const Json& body, const generate::SamplingParams& defaults);

}  // namespace lorry::serve
