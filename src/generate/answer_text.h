// From generated tokens to the text that a client may see.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "generate/generation.h"
#include "generate/stop_matcher.h"
#include "tokenizer/tokenizer.h"

namespace lorry::generate {

/// Decodes, holds back unfinished characters and possible stop strings, and says why the answer
/// ended. Not thread-safe.
class AnswerText {
 public:
  /// `include_stop`: what ended the answer, a stop string or token, is part of its text.
  AnswerText(std::shared_ptr<const tokenizer::Tokenizer> tokenizer, bool skip_special_tokens,
             std::vector<std::string> stops, bool include_stop = false)
      : decoder_(std::move(tokenizer), skip_special_tokens),
        stops_(std::move(stops), include_stop),
        include_stop_(include_stop) {}

  /// The answer goes on after these tokens, whose text is not its own: a first token then keeps the
  /// space before it. Before the first `push`.
  void continue_after(std::span<const int32_t> prompt) {
    for (const int32_t id : prompt) decoder_.push(id);
  }
  /// The text that became certain. Not to be called once `finish` is set.
  std::string push(const TokenEvent& event) {
    std::string out;
    if (event.id >= 0) {
      ++tokens_;
      if (!event.is_stop || include_stop_) out = stops_.push(decoder_.push(event.id));
    }
    if (event.finish != FinishReason::kNone && !stops_.stopped()) {
      out += stops_.push(decoder_.finish());
      out += stops_.finish();
    }
    finish_ = stops_.stopped() ? FinishReason::kStop : event.finish;
    return out;
  }
  FinishReason finish() const { return finish_; }
  /// Generated so far, the one that ended the answer included.
  int64_t tokens() const { return tokens_; }

 private:
  tokenizer::StreamDecoder decoder_;
  StopMatcher stops_;
  bool include_stop_;
  FinishReason finish_ = FinishReason::kNone;
  int64_t tokens_ = 0;
};

}  // namespace lorry::generate
