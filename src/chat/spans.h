// Where in a rendered conversation the assistant speaks.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "chat/regions.h"
#include "chat/seams.h"
#include "tokenizer/tokenizer.h"

namespace lorry::chat {

/// The bytes [begin, end) of a text in which an assistant's message is said.
struct AssistantSpan {
  size_t begin = 0, end = 0;
  size_t message = 0;  ///< its place in the conversation
};

/// One span for each assistant message of `messages` that is shown, in order: from behind its
/// header up to and with its end-of-turn token, widened to the whole of the token that holds its
/// first character. `text` is the rendering of all messages, `encoding`
/// its tokens. `known`: seams of the template, looked at before it is asked; what had to be found
/// out is added to `found` if that is not null. The result depends on `known` and the messages
/// alone.
std::vector<AssistantSpan> assistant_spans(const Json& messages, const std::string& text,
                                           const tokenizer::Encoding& encoding,
                                           const tokenizer::Tokenizer& tokenizer,
                                           const SpanRender& render, const Seams& known = {},
                                           Seams* found = nullptr);

/// The bytes of the token that holds a byte of the text; an empty range at `byte` if none does.
Span token_around(const tokenizer::Encoding& encoding, size_t byte);

}  // namespace lorry::chat
