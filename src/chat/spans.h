// Where in a rendered conversation the assistant speaks.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "chat/regions.h"
#include "chat/seams.h"
#include "tokenizer/tokenizer.h"

namespace lorry::chat {

/// One span for each assistant message of `messages` that is shown, in order: from behind its
/// header up to and with its end-of-turn token. `text` is the rendering of all messages, `encoding`
/// its tokens. `known`: seams of the template, looked at before it is asked; what had to be found
/// out is added to `found` if that is not null. The result depends on `known` and the messages
/// alone.
std::vector<Span> assistant_spans(const Json& messages, const std::string& text,
                                  const tokenizer::Encoding& encoding,
                                  const tokenizer::Tokenizer& tokenizer, const SpanRender& render,
                                  const Seams& known = {}, Seams* found = nullptr);

}  // namespace lorry::chat
