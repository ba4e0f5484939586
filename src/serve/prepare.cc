#include "serve/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <random>

#include "base/utf8.h"
#include "serve/openai_response.h"
#include "tokenizer/unicode.h"

namespace lorry::serve {
namespace {

ApiError refusal(std::string message, std::string param) {
  return {400, std::move(message), "invalid_request_error", std::move(param), {}};
}

ApiError from_error(const Error& error, std::string param) {
  ApiError out = refusal(error.message, std::move(param));
  if (error.kind == ErrorKind::kUnavailable || error.kind == ErrorKind::kCorruptData) {
    out.status = 500;
    out.type = "server_error";
  }
  return out;
}

uint64_t fresh_seed() {
  thread_local std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

/// Whether the role is one that every template is written for.
bool has_usual_role(const Json& message) {
  const auto role = message.find("role");
  return role != message.end() &&
         (*role == "system" || *role == "user" || *role == "assistant" || *role == "tool");
}

/// Whether the template writes messages of this role at all.
bool shows_role(const chat::Chat& chat, const std::string& role) {
  constexpr const char* kWords = "qvxzj";  // of no template
  const Json messages = {{{"role", role}, {"content", kWords}},
                         {{"role", "user"}, {"content", "."}}};
  const auto text = chat.render(messages, Json(), /*add_generation_prompt=*/true, Json());
  return text.ok() && text->find(kWords) != std::string::npos;
}

/// A template leaves messages of a role that it does not know out in silence: instructions of a
/// developer then become the system's, and any other role is an error.
std::optional<ApiError> adapt_roles(const chat::Chat& chat, Json& messages) {
  for (size_t i = 0; i < messages.size(); ++i) {
    const auto role = messages[i].value("role", std::string());
    if (has_usual_role(messages[i]) || shows_role(chat, role)) continue;
    if (role == "developer") {
      messages[i]["role"] = "system";
      continue;
    }
    return refusal(fmt::format("messages[{}] has the role '{}', which this model's chat template "
                               "does not show",
                               i, role),
                   "messages");
  }
  return std::nullopt;
}

/// What the template makes of a short question with this variable; nullopt if it fails.
std::optional<std::string> question_with(const chat::Chat& chat, const Json& variables) {
  const Json messages = Json::array({Json{{"role", "user"}, {"content", "."}}});
  auto text = chat.render(messages, Json(), /*add_generation_prompt=*/true, variables);
  if (!text.ok()) return std::nullopt;
  return std::move(text).value();
}

/// Whether what the template writes depends on the variable. Some tell only a few values apart.
bool uses_variable(const chat::Chat& chat, const std::string& name, const Json& given) {
  const auto without = question_with(chat, Json());
  const Json words = "qvxzj";
  const Json document = {{"title", words}, {"text", words}, {"contents", words}};
  const Json probes = given.is_array() ? Json::array({given, Json::array({document})})
                                       : Json::array({given, words, "low", "medium", "high"});
  return std::any_of(probes.begin(), probes.end(), [&](const Json& value) {
    return question_with(chat, Json{{name, value}}) != without;
  });
}

/// The template's variables: those of the request's own field for them first.
std::variant<Json, ApiError> template_variables(const chat::Chat& chat,
                                                const ChatRequest& request) {
  Json out = request.extra;
  for (const auto& [name, value] : request.template_fields) {
    if (!uses_variable(chat, name, value)) {
      return refusal(fmt::format("'{}': this model's chat template does not use it, so it would "
                                 "change nothing; leave it out",
                                 name),
                     name);
    }
    if (!out.is_object()) out = Json::object();
    if (!out.contains(name)) out[name] = value;
  }
  return out;
}

/// The character that each token of `text` begins in.
std::vector<int64_t> offsets_in(const tokenizer::Tokenizer& tokenizer, const std::string& text,
                                bool add_special_tokens) {
  std::vector<int64_t> out;
  size_t at = 0;
  int64_t characters = 0;  // before `at`
  for (const auto& [first, end] : tokenizer.encode_with_offsets(text, add_special_tokens).offsets) {
    const size_t begin = utf8_start(text, first);
    const auto [low, high] = std::minmax(at, begin);
    const int64_t between = count_characters(std::string_view(text).substr(low, high - low));
    characters += begin < at ? -between : between;
    at = begin;
    out.push_back(characters);
  }
  return out;
}

std::vector<int64_t> offsets_of(const std::shared_ptr<const tokenizer::Tokenizer>& tokenizer,
                                const std::vector<int32_t>& ids, bool skip_special_tokens) {
  std::vector<int64_t> out;
  tokenizer::StreamDecoder decoder(tokenizer, skip_special_tokens);
  int64_t characters = 0;
  for (const int32_t id : ids) {
    out.push_back(characters);
    characters += count_characters(decoder.push(id));
  }
  return out;
}

}  // namespace

std::optional<ApiError> unknown_id(const ServedModel& model, const std::vector<int32_t>& ids,
                                   const char* param) {
  for (const int32_t id : ids) {
    if (id >= 0 && id < model.vocab_size) continue;
    const std::string text =
        id < 0 ? "" : model.chat->tokenizer()->decode(std::span(&id, 1), false);
    return refusal(fmt::format("'{}' holds token id {}{}; the model has {}", param, id,
                               text.empty() ? "" : fmt::format(" ({})", text), model.vocab_size),
                   param);
  }
  return std::nullopt;
}

std::variant<std::vector<int32_t>, ApiError> chat_prompt(const ServedModel& model,
                                                         const ChatRequest& request) {
  const Json* messages = &request.messages;
  Json changed;
  if (!std::all_of(messages->begin(), messages->end(), has_usual_role)) {
    changed = *messages;
    if (auto error = adapt_roles(*model.chat, changed)) return *std::move(error);
    messages = &changed;
  }
  if (!request.tools.is_null() && !model.shows_tools) {
    return refusal(
        "'tools': this model's chat template has no place for them, so the model would not see "
        "them; leave them out, or send \"tool_choice\": \"none\"",
        "tools");
  }
  auto variables = template_variables(*model.chat, request);
  if (auto* error = std::get_if<ApiError>(&variables)) return *error;
  auto ids = model.chat->encode_prompt(*messages, request.tools, std::get<Json>(variables));
  if (!ids.ok()) return from_error(ids.error(), "messages");
  if (const auto unknown = unknown_id(model, *ids, "messages")) return *unknown;
  return std::move(ids).value();
}

std::variant<std::vector<int32_t>, ApiError> completion_prompt(const ServedModel& model,
                                                               const CompletionRequest& request,
                                                               const Prompt& prompt) {
  const tokenizer::Tokenizer& tokenizer = *model.chat->tokenizer();
  std::vector<int32_t> ids;
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    ids = tokenizer.encode(*text, request.add_special_tokens);
  } else {
    ids = std::get<std::vector<int32_t>>(prompt);
  }
  if (const auto unknown = unknown_id(model, ids, "prompt")) return *unknown;
  if (!ids.empty()) return ids;
  // Nothing to start from: as the API does, begin a text.
  const auto start = tokenizer.bos_id() ? tokenizer.bos_id() : tokenizer.eos_id();
  if (start) return std::vector<int32_t>{*start};
  return refusal("'prompt' is empty", "prompt");
}

Echo make_echo(const ServedModel& model, const CompletionRequest& request, const Prompt& prompt,
               const std::vector<int32_t>& ids) {
  if (!request.echo) return {};
  const auto tokenizer = model.chat->tokenizer();
  Echo out;
  const auto* text = std::get_if<std::string>(&prompt);
  out.text = text ? *text : tokenizer->decode(ids, request.skip_special_tokens);
  if (!request.score_prompt) return out;
  out.offsets = text ? offsets_in(*tokenizer, *text, request.add_special_tokens)
                     : offsets_of(tokenizer, ids, request.skip_special_tokens);
  out.offsets.resize(ids.size());  // an empty text still has a first token
  return out;
}

std::variant<generate::SequenceRequest, ApiError> make_sequence(const ServedModel& model,
                                                                const GenerationOptions& options,
                                                                std::vector<int32_t> prompt,
                                                                int64_t choice, bool chat) {
  const auto length = static_cast<int64_t>(prompt.size());
  const char* param = chat ? "messages" : "prompt";
  const int64_t least = options.max_tokens == 0 ? 0 : 1;  // of the answer
  if (length + least > model.max_model_len)
    return context_length_error(model.max_model_len, length, param);
  if (prompt.empty()) return refusal("the chat template renders these messages as nothing", param);
  generate::SequenceRequest out;
  out.prompt = std::move(prompt);
  out.sampling = options.sampling;
  out.logit_bias = options.logit_bias;
  out.seed = options.seed ? *options.seed + 0x9e3779b97f4a7c15 * static_cast<uint64_t>(choice)
                          : fresh_seed();
  const int64_t room = model.max_model_len - length;
  out.max_tokens = std::min(options.max_tokens.value_or(room), room);
  out.stop_ids = options.stop_token_ids;
  if (!options.ignore_eos) {
    const auto& ends = chat ? model.chat_stop_ids : model.stop_ids;
    out.stop_ids.insert(out.stop_ids.end(), ends.begin(), ends.end());
  }
  out.top_logprobs = options.top_logprobs;
  out.score_prompt = options.score_prompt;
  out.adapter = model.adapter;
  out.cache_salt = options.cache_salt;
  return out;
}

}  // namespace lorry::serve
