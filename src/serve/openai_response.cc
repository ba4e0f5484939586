#include "serve/openai_response.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

namespace lorry::serve {
namespace {

std::string json_string(std::string_view text) { return dump_json(Json(text)); }

/// One choice inside a chunk; the JSON is put together by hand, once for every token.
std::string chunk(const AnswerHead& head, std::string_view choices, std::string_view usage) {
  return sse(fmt::format(R"({{"id":"{}","object":"{}","created":{},"model":{},"choices":[{}]{}}})",
                         head.id, head.chat ? "chat.completion.chunk" : "text_completion",
                         head.created, json_string(head.model), choices, usage));
}

std::string choice_chunk(const AnswerHead& head, size_t index, std::string_view content,
                         std::string_view logprobs, std::string_view finish) {
  return chunk(head,
               fmt::format(R"({{"index":{},{},"logprobs":{},"finish_reason":{}}})", index, content,
                           logprobs, finish),
               head.include_usage ? R"(,"usage":null)" : "");
}

std::string usage_json(const Usage& usage) {
  return fmt::format(R"({{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{}}})",
                     usage.prompt_tokens, usage.completion_tokens,
                     usage.prompt_tokens + usage.completion_tokens);
}

/// JSON knows no infinity; the API's floor is -9999.
float finite(float logprob) { return std::max(logprob, -9999.0F); }

}  // namespace

std::string_view finish_reason_name(generate::FinishReason reason) {
  return reason == generate::FinishReason::kLength ? "length" : "stop";
}

std::string sse(std::string_view json) { return fmt::format("data: {}\n\n", json); }

std::string role_chunk(const AnswerHead& head, size_t index) {
  return choice_chunk(head, index, R"("delta":{"role":"assistant","content":""})", "null", "null");
}

std::string text_chunk(const AnswerHead& head, size_t index, std::string_view text,
                       const Json& logprobs) {
  const std::string content = head.chat
                                  ? fmt::format(R"("delta":{{"content":{}}})", json_string(text))
                                  : fmt::format(R"("text":{})", json_string(text));
  return choice_chunk(head, index, content, dump_json(logprobs), "null");
}

std::string finish_chunk(const AnswerHead& head, size_t index, generate::FinishReason reason) {
  return choice_chunk(head, index, head.chat ? R"("delta":{})" : R"("text":"")", "null",
                      fmt::format("\"{}\"", finish_reason_name(reason)));
}

std::string usage_chunk(const AnswerHead& head, const Usage& usage) {
  return chunk(head, "", R"(,"usage":)" + usage_json(usage));
}

std::string whole_answer(const AnswerHead& head, const std::vector<Choice>& choices,
                         const Usage& usage) {
  std::string list;
  for (size_t i = 0; i < choices.size(); ++i) {
    const Choice& choice = choices[i];
    const std::string text = json_string(choice.text);
    list += fmt::format(
        R"({}{{"index":{},{},"logprobs":{},"finish_reason":"{}"}})", i ? "," : "", i,
        head.chat ? fmt::format(R"("message":{{"role":"assistant","content":{}}})", text)
                  : R"("text":)" + text,
        dump_json(choice.logprobs), choice.finish_reason);
  }
  return fmt::format(
      R"({{"id":"{}","object":"{}","created":{},"model":{},"choices":[{}],"usage":{}}})", head.id,
      head.chat ? "chat.completion" : "text_completion", head.created, json_string(head.model),
      list, usage_json(usage));
}

std::string LogprobWriter::token_text(int32_t id) const {
  return tokenizer_.decode(std::span(&id, 1), false);
}

Json LogprobWriter::entry(const generate::TokenLogprob& token) const {
  Json out;
  const std::string text = token_text(token.id);
  out["token"] = text;
  out["logprob"] = finite(token.logprob);
  out["bytes"] = std::vector<uint8_t>(text.begin(), text.end());
  return out;
}

void LogprobWriter::add(const generate::TokenEvent& event) {
  if (chat_) {
    Json one = entry({event.id, event.logprob});
    Json top = Json::array();
    for (const generate::TokenLogprob& token : event.top) top.push_back(entry(token));
    one["top_logprobs"] = std::move(top);
    if (pending_.is_null()) pending_["content"] = Json::array();
    pending_["content"].push_back(std::move(one));
    return;
  }
  if (pending_.is_null()) {
    for (const char* list : {"text_offset", "token_logprobs", "tokens", "top_logprobs"})
      pending_[list] = Json::array();
  }
  const std::string text = token_text(event.id);
  Json top = Json::object();
  for (const generate::TokenLogprob& token : event.top)
    top[token_text(token.id)] = finite(token.logprob);
  top[text] = finite(event.logprob);
  pending_["text_offset"].push_back(text_offset_);
  pending_["token_logprobs"].push_back(finite(event.logprob));
  pending_["tokens"].push_back(text);
  pending_["top_logprobs"].push_back(std::move(top));
  // Offsets count characters, as Python strings do.
  text_offset_ += std::count_if(text.begin(), text.end(),
                                [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; });
}

Json LogprobWriter::take() { return std::exchange(pending_, Json()); }

}  // namespace lorry::serve
