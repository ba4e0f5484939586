#include "serve/openai_response.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "tokenizer/unicode.h"

namespace lorry::serve {
namespace {

std::string json_string(std::string_view text) { return dump_json(Json(text)); }

std::string usage_json(const Usage& usage) {
  return fmt::format(R"({{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},)"
                     R"("prompt_tokens_details":{{"cached_tokens":{}}}}})",
                     usage.prompt_tokens, usage.completion_tokens,
                     usage.prompt_tokens + usage.completion_tokens, usage.cached_tokens);
}

/// The JSON is put together by hand, once for every token. `members`: of the chunk, after its
/// choices.
std::string chunk(const AnswerHead& head, std::string_view choices, std::string_view members) {
  return sse(fmt::format(R"({{"id":"{}","object":"{}","created":{},"model":{},"choices":[{}]{}}})",
                         head.id, head.chat ? "chat.completion.chunk" : "text_completion",
                         head.created, json_string(head.model), choices, members));
}

std::string usage_member(const AnswerHead& head) {
  if (!head.include_usage) return {};
  return R"(,"usage":)" + (head.continuous_usage ? usage_json(head.usage) : "null");
}

/// One choice inside a chunk.
struct ChunkChoice {
  std::string_view content;  ///< its member
  std::string_view logprobs = "null", finish_reason = "null";
  std::string_view members = {};
};

std::string choice_chunk(const AnswerHead& head, size_t index, const ChunkChoice& choice,
                         std::string_view members = {}) {
  return chunk(head,
               fmt::format(R"({{"index":{},{},"logprobs":{},"finish_reason":{}{}}})", index,
                           choice.content, choice.logprobs, choice.finish_reason, choice.members),
               usage_member(head).append(members));
}

std::string call_members(const IdentifiedCall& call) {
  return fmt::format(R"("id":"{}","type":"function","function":{{"name":{},"arguments":{}}})",
                     call.id, json_string(call.call.name), json_string(call.call.arguments));
}

/// The message of a chat's choice. Without words there is no content, but for an empty answer.
std::string message_json(const Choice& choice) {
  std::string calls;
  for (const IdentifiedCall& call : choice.calls)
    calls += fmt::format("{}{{{}}}", calls.empty() ? "" : ",", call_members(call));
  const bool no_words = choice.text.empty() && !calls.empty();
  return fmt::format(R"({{"role":"assistant","content":{}{}}})",
                     no_words ? "null" : json_string(choice.text),
                     calls.empty() ? "" : fmt::format(R"(,"tool_calls":[{}])", calls));
}

std::string id_as_token(int32_t id) { return fmt::format("token_id:{}", id); }

/// JSON knows no infinity; the API's floor is -9999.
float finite(float logprob) { return std::max(logprob, -9999.0F); }

}  // namespace

std::string_view finish_reason_name(generate::FinishReason reason, bool calls) {
  if (calls && reason == generate::FinishReason::kStop) return "tool_calls";
  return reason == generate::FinishReason::kLength ? "length" : "stop";
}

std::string sse(std::string_view json) { return fmt::format("data: {}\n\n", json); }

std::string ids_member(std::string_view name, std::span<const int32_t> ids) {
  return fmt::format(R"(,"{}":[{}])", name, fmt::join(ids, ","));
}

std::string role_chunk(const AnswerHead& head, size_t index, std::string_view members) {
  return choice_chunk(head, index, {R"("delta":{"role":"assistant","content":""})"}, members);
}

std::string text_chunk(const AnswerHead& head, size_t index, std::string_view text,
                       const Json& logprobs, std::string_view members) {
  const std::string content = head.chat
                                  ? fmt::format(R"("delta":{{"content":{}}})", json_string(text))
                                  : fmt::format(R"("text":{})", json_string(text));
  return choice_chunk(head, index, {content, dump_json(logprobs), "null", members});
}

std::string call_chunk(const AnswerHead& head, size_t index, size_t number,
                       const IdentifiedCall& call) {
  const std::string delta =
      fmt::format(R"("delta":{{"tool_calls":[{{"index":{},{}}}]}})", number, call_members(call));
  return choice_chunk(head, index, {delta});
}

std::string finish_chunk(const AnswerHead& head, size_t index, std::string_view reason,
                         std::string_view members) {
  const std::string quoted = fmt::format("\"{}\"", reason);
  return choice_chunk(head, index,
                      {head.chat ? R"("delta":{})" : R"("text":"")", "null", quoted, members});
}

std::string usage_chunk(const AnswerHead& head) {
  return chunk(head, "", R"(,"usage":)" + usage_json(head.usage));
}

std::string whole_answer(const AnswerHead& head, const std::vector<Choice>& choices,
                         std::string_view members) {
  std::string list;
  for (size_t i = 0; i < choices.size(); ++i) {
    const Choice& choice = choices[i];
    list +=
        fmt::format(R"({}{{"index":{},{},"logprobs":{},"finish_reason":"{}"{}}})", i ? "," : "", i,
                    head.chat ? R"("message":)" + message_json(choice)
                              : R"("text":)" + json_string(choice.text),
                    dump_json(choice.logprobs), choice.finish_reason, choice.members);
  }
  return fmt::format(
      R"({{"id":"{}","object":"{}","created":{},"model":{},"choices":[{}],"usage":{}{}}})", head.id,
      head.chat ? "chat.completion" : "text_completion", head.created, json_string(head.model),
      list, usage_json(head.usage), members);
}

int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; });
}

void LogprobWriter::continue_after(std::span<const int32_t> prompt) {
  for (const int32_t id : prompt) advance(id);
  text_offset_ = 0;
}

void LogprobWriter::begin_with_prompt(int32_t first, std::vector<int64_t> offsets, int64_t length) {
  prompt_offsets_ = std::move(offsets);
  text_offset_ = length;
  add({first, 0, {}}, true);
}

int64_t LogprobWriter::advance(int32_t id) {
  const std::string text = decoder_.push(id);
  if (!skip_special_tokens_ || !tokenizer_->is_special(id)) at_start_ = false;
  if (prompt_tokens_ < prompt_offsets_.size()) return prompt_offsets_[prompt_tokens_++];
  return std::exchange(text_offset_, text_offset_ + count_characters(text));
}

std::string LogprobWriter::bytes_of(int32_t id) const {
  return tokenizer_->token_bytes(id, at_start_);
}

/// The token in the lists of completions: different for all that may stand in one place.
std::string LogprobWriter::key_of(int32_t id) const {
  if (tokens_as_ids_) return id_as_token(id);
  std::string bytes = bytes_of(id);
  if (tokenizer::is_valid_utf8(bytes)) return bytes;
  std::string out = "bytes:";
  for (const char byte : bytes) out += fmt::format("\\x{:02x}", static_cast<uint8_t>(byte));
  return out;
}

Json LogprobWriter::entry(int32_t id, float logprob) const {
  const std::string bytes = bytes_of(id);
  Json out;
  out["token"] = tokens_as_ids_ ? id_as_token(id) : tokenizer::replace_invalid_utf8(bytes);
  out["logprob"] = finite(logprob);
  out["bytes"] = std::vector<uint8_t>(bytes.begin(), bytes.end());
  return out;
}

void LogprobWriter::add(const generate::TokenScore& score, bool unknown) {
  chat_ ? add_to_chat(score) : add_to_completion(score, unknown);
}

void LogprobWriter::add_to_chat(const generate::TokenScore& score) {
  Json one = entry(score.id, score.logprob);
  Json top = Json::array();
  for (const generate::TokenLogprob& token : score.top)
    top.push_back(entry(token.id, token.logprob));
  one["top_logprobs"] = std::move(top);
  if (pending_.is_null()) pending_["content"] = Json::array();
  pending_["content"].push_back(std::move(one));
  advance(score.id);
}

void LogprobWriter::add_to_completion(const generate::TokenScore& score, bool unknown) {
  if (pending_.is_null()) {
    for (const char* list : {"text_offset", "token_logprobs", "tokens", "top_logprobs"})
      pending_[list] = Json::array();
  }
  Json top = Json::object();
  const std::string key = key_of(score.id);
  // Ids of one text (a byte and the letter that it is): the likelier one has the key.
  const auto insert = [&](const std::string& text, float logprob) {
    const auto [it, fresh] = top.emplace(text, finite(logprob));
    if (!fresh && it->get<float>() < logprob) *it = finite(logprob);
  };
  for (const generate::TokenLogprob& token : score.top) insert(key_of(token.id), token.logprob);
  insert(key, score.logprob);
  pending_["tokens"].push_back(key);
  pending_["token_logprobs"].push_back(unknown ? Json() : Json(finite(score.logprob)));
  pending_["top_logprobs"].push_back(unknown ? Json() : std::move(top));
  pending_["text_offset"].push_back(advance(score.id));
}

Json LogprobWriter::take() { return std::exchange(pending_, Json()); }

}  // namespace lorry::serve
