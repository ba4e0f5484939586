// The turn of one assistant message in a rendered conversation, found by rendering the conversation
// again: up to the message, or with the message saying something else. Costs a few renderings for
// each message that is asked for; spans.h asks for few.
#pragma once

#include <optional>
#include <string>

#include "chat/spans.h"

namespace lorry::chat {

/// Holds references to what it is made of. Not thread-safe.
class TurnFinder {
 public:
  /// `text` is the rendering of all messages, `encoding` its tokens.
  TurnFinder(const Json& messages, const std::string& text, const tokenizer::Encoding& encoding,
             const tokenizer::Tokenizer& tokenizer, const SpanRender& render);

  /// The turn of assistant message i: from behind its header up to and with its end-of-turn token;
  /// nullopt if the text does not show it. It begins no earlier than `last_end`, where the turn
  /// before it ended. `said`: where its own words end, if that is known; no end-of-turn token
  /// stands before that.
  std::optional<Span> find(size_t i, size_t last_end, std::optional<size_t> said);

  /// Mends a turn that `find` gave though a part of it is a neighbour's: the words of message i are
  /// text[words], those of its neighbours end at `before` and begin at `after`.
  Span mend(size_t i, Span turn, Span words, size_t before, size_t after);

 private:
  std::optional<Span> by_prefix(size_t i);
  std::optional<Span> by_difference(size_t i);
  std::optional<Span> without_prompt(size_t i);
  std::optional<Span> difference(const std::string& other) const;
  std::optional<std::string> other_text(size_t i, size_t n) const;
  const std::string& generation_prompt(size_t i);
  size_t behind_header(size_t i, size_t said);
  size_t end_within(size_t i, size_t begin, Span words, size_t after) const;
  size_t end_of_turn(size_t i, size_t begin, size_t end) const;
  size_t end_behind(size_t i, size_t start, size_t said, size_t limit) const;
  size_t before_next_header(size_t i, size_t said) const;
  bool opens(int32_t id) const;
  size_t own_end(size_t i, size_t said) const;
  bool ends_in_special(size_t end) const;
  size_t said_end(size_t i, size_t begin, size_t end) const;
  size_t closing(const std::vector<size_t>& run) const;
  size_t token_at(size_t byte) const;
  bool special(size_t token) const;
  bool is_eos(size_t token) const;
  Json first_messages(size_t n) const;

  const Json& messages_;
  const std::string& text_;
  const tokenizer::Encoding& encoding_;
  const tokenizer::Tokenizer& tokenizer_;
  const SpanRender& render_;
  size_t last_end_ = 0, said_ = 0;
  std::optional<std::string> prompt_;
};

}  // namespace lorry::chat
