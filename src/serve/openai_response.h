// Answers in the form of the OpenAI API: whole, and as server-sent events.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "chat/call_reader.h"
#include "generate/generation.h"
#include "tokenizer/tokenizer.h"

namespace lorry::serve {

struct Usage {
  int64_t prompt_tokens = 0, completion_tokens = 0;
  int64_t cached_tokens = 0;  ///< of the prompts, found in the cache
};

/// What all parts of one answer share.
struct AnswerHead {
  std::string id;  ///< "chatcmpl-..." or "cmpl-..."
  std::string model;
  int64_t created = 0;  ///< seconds since 1970
  bool chat = true;
  bool include_usage = false;     ///< of a stream
  bool continuous_usage = false;  ///< in each of its chunks
  Usage usage;                    ///< so far
};

/// A call with the id by which its result is given back.
struct IdentifiedCall {
  std::string id;
  chat::ToolCall call;
};

/// One choice of a whole answer.
struct Choice {
  std::string text;
  std::vector<IdentifiedCall> calls;
  std::string finish_reason;
  Json logprobs;        ///< null if not asked for
  std::string members;  ///< further ones
};

/// "stop", "length", ...; "tool_calls" for an answer that ends with calls.
std::string_view finish_reason_name(generate::FinishReason reason, bool calls);

/// "data: {...}\n\n"
std::string sse(std::string_view json);
inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";

/// `,"name":[1,2]`: a further member of a choice or an answer, as `members` below.
std::string ids_member(std::string_view name, std::span<const int32_t> ids);

/// The first chunk of a choice of a streamed chat: the role. `members`: of the whole chunk.
std::string role_chunk(const AnswerHead& head, size_t index, std::string_view members = {});
/// A piece of text; `logprobs` may be null.
std::string text_chunk(const AnswerHead& head, size_t index, std::string_view text,
                       const Json& logprobs, std::string_view members = {});
/// A whole call; `number`: of the choice's calls, from 0.
std::string call_chunk(const AnswerHead& head, size_t index, size_t number,
                       const IdentifiedCall& call);
std::string finish_chunk(const AnswerHead& head, size_t index, std::string_view reason,
                         std::string_view members = {});
std::string usage_chunk(const AnswerHead& head);
/// `members`: of the answer, beside its choices.
std::string whole_answer(const AnswerHead& head, const std::vector<Choice>& choices,
                         std::string_view members = {});

/// How many characters UTF-8 text has, as Python counts them.
int64_t count_characters(std::string_view text);

/// Log-probabilities in the form of chat ({"content": [...]}) or completions ({"tokens", ...}).
///
/// A token that is part of a character is no text: chat shows it as U+FFFD beside its `bytes`,
/// completions as "bytes:\xf0\x9f", as OpenAI's did. Offsets count the characters of the text
/// before the one that the token belongs to. With `tokens_as_ids` a token is "token_id:7".
class LogprobWriter {
 public:
  LogprobWriter(std::shared_ptr<const tokenizer::Tokenizer> tokenizer, bool skip_special_tokens,
                bool tokens_as_ids, bool chat)
      : tokenizer_(tokenizer),
        decoder_(std::move(tokenizer), skip_special_tokens),
        skip_special_tokens_(skip_special_tokens),
        tokens_as_ids_(tokens_as_ids),
        chat_(chat) {}
  /// The answer goes on after these tokens, which are not shown. Before the first `add`.
  void continue_after(std::span<const int32_t> prompt);
  /// The text begins with a prompt of `length` characters whose tokens have these offsets. Adds the
  /// first, which nothing predicts; the others come through `add`. Before the first `add`.
  void begin_with_prompt(int32_t first, std::vector<int64_t> offsets, int64_t length);
  void add(const generate::TokenScore& score) { add(score, false); }
  /// What was added since the last call; null if nothing was.
  Json take();

 private:
  /// `unknown`: the log-probabilities are null.
  void add(const generate::TokenScore& score, bool unknown);
  void add_to_chat(const generate::TokenScore& score);
  void add_to_completion(const generate::TokenScore& score, bool unknown);
  /// The next token of the text; returns its offset.
  int64_t advance(int32_t id);
  std::string bytes_of(int32_t id) const;
  std::string key_of(int32_t id) const;
  Json entry(int32_t id, float logprob) const;

  std::shared_ptr<const tokenizer::Tokenizer> tokenizer_;
  tokenizer::StreamDecoder decoder_;
  bool skip_special_tokens_, tokens_as_ids_;
  bool chat_;
  bool at_start_ = true;  // of the text: no token of it was seen
  std::vector<int64_t> prompt_offsets_;
  size_t prompt_tokens_ = 0;  // of them, seen so far
  int64_t text_offset_ = 0;
  Json pending_;
};

}  // namespace lorry::serve
