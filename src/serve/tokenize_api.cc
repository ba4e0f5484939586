#include "serve/tokenize_api.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "serve/prepare.h"
#include "tokenizer/unicode.h"

namespace lorry::serve {
namespace {

using Ids = std::variant<std::vector<int32_t>, ApiError>;

ApiError wrong(std::string message, std::string param) {
  return {400, std::move(message), "invalid_request_error", std::move(param), {}};
}

/// A field that is a truth value, or the error of one that is not.
std::variant<bool, ApiError> flag(const Json& body, const char* name, bool otherwise) {
  const auto it = body.find(name);
  if (it == body.end() || it->is_null()) return otherwise;
  if (!it->is_boolean()) return wrong(std::string("'") + name + "' must be a boolean", name);
  return it->get<bool>();
}

Ids ids_of_text(const Json& body, const ServedModel& model) {
  const auto prompt = body.find("prompt");
  if (prompt == body.end() || !prompt->is_string())
    return wrong("'prompt' (a string) or 'messages' (an array) is required", "prompt");
  const auto special = flag(body, "add_special_tokens", true);
  if (const auto* error = std::get_if<ApiError>(&special)) return *error;
  return model.chat->tokenizer()->encode(prompt->get_ref<const std::string&>(),
                                         std::get<bool>(special));
}

Ids ids_of_chat(const Json& body, const ServedModel& model) {
  auto parsed = parse_chat_request(body, model.defaults);
  if (auto* error = std::get_if<ApiError>(&parsed)) return *error;
  return chat_prompt(model, std::get<ChatRequest>(parsed));
}

Json strings_of(const std::vector<int32_t>& ids, const tokenizer::Tokenizer& tokenizer) {
  Json out = Json::array();
  for (size_t i = 0; i < ids.size(); ++i)
    out.push_back(tokenizer::replace_invalid_utf8(tokenizer.token_bytes(ids[i], i == 0)));
  return out;
}

}  // namespace

std::variant<std::string, ApiError> tokenize(const Json& body, const ServedModel& model) {
  const auto with_strings = flag(body, "return_token_strs", false);
  if (const auto* error = std::get_if<ApiError>(&with_strings)) return *error;
  auto made = body.contains("messages") ? ids_of_chat(body, model) : ids_of_text(body, model);
  if (auto* error = std::get_if<ApiError>(&made)) return *error;
  const auto& ids = std::get<std::vector<int32_t>>(made);
  Json out;
  out["count"] = ids.size();
  out["max_model_len"] = model.max_model_len;
  out["tokens"] = ids;
  out["token_strs"] =
      std::get<bool>(with_strings) ? strings_of(ids, *model.chat->tokenizer()) : Json();
  return dump_json(out);
}

std::variant<std::string, ApiError> detokenize(const Json& body, const ServedModel& model) {
  const auto tokens = body.find("tokens");
  if (tokens == body.end() || !tokens->is_array())
    return wrong("'tokens' is required: an array of token ids", "tokens");
  std::vector<int32_t> ids;
  for (const Json& token : *tokens) {
    const bool is_id = token.is_number_integer() && token >= 0 && token <= INT32_MAX;
    if (!is_id) return wrong("'tokens' must hold token ids", "tokens");
    ids.push_back(token.get<int32_t>());
  }
  if (auto unknown = unknown_id(model, ids, "tokens")) return *std::move(unknown);
  Json out;
  out["prompt"] = model.chat->tokenizer()->decode(ids, /*skip_special_tokens=*/false);
  return dump_json(out);
}

}  // namespace lorry::serve
