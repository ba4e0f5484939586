// Answers in the form of the OpenAI API: whole, and as server-sent events.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "generate/generation.h"
#include "tokenizer/tokenizer.h"

namespace lorry::serve {

/// What all parts of one answer share.
struct AnswerHead {
  std::string id;  ///< "chatcmpl-..." or "cmpl-..."
  std::string model;
  int64_t created = 0;  ///< seconds since 1970
  bool chat = true;
  bool include_usage = false;  ///< of a stream
};

struct Usage {
  int64_t prompt_tokens = 0, completion_tokens = 0;
};

/// One choice of a whole answer.
struct Choice {
  std::string text;
  std::string finish_reason;
  Json logprobs;  ///< null if not asked for
};

/// "stop", "length", ...
std::string_view finish_reason_name(generate::FinishReason reason);

/// "data: {...}\n\n"
std::string sse(std::string_view json);
inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";

/// The first chunk of a choice of a streamed chat: the role.
std::string role_chunk(const AnswerHead& head, size_t index);
/// A piece of text; `logprobs` may be null.
std::string text_chunk(const AnswerHead& head, size_t index, std::string_view text,
                       const Json& logprobs);
std::string finish_chunk(const AnswerHead& head, size_t index, generate::FinishReason reason);
std::string usage_chunk(const AnswerHead& head, const Usage& usage);
std::string whole_answer(const AnswerHead& head, const std::vector<Choice>& choices,
                         const Usage& usage);

/// Log-probabilities in the form of chat ({"content": [...]}) or completions ({"tokens", ...}).
class LogprobWriter {
 public:
  LogprobWriter(const tokenizer::Tokenizer& tokenizer, bool chat, int64_t text_offset)
      : tokenizer_(tokenizer), chat_(chat), text_offset_(text_offset) {}
  void add(const generate::TokenEvent& event);
  /// What was added since the last call; null if nothing was.
  Json take();

 private:
  std::string token_text(int32_t id) const;
  Json entry(const generate::TokenLogprob& token) const;

  const tokenizer::Tokenizer& tokenizer_;
  bool chat_;
  int64_t text_offset_;
  Json pending_;
};

}  // namespace lorry::serve
