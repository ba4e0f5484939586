// Where in a rendered conversation the assistant speaks.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "text/chat_regions.h"
#include "text/chat_seams.h"
#include "text/tokenizer.h"

namespace lorry::text {

/// One span for each assistant message of `messages` that is shown, in order: from behind its
/// header up to and with its end-of-turn token. `text` is the rendering of all messages, `encoding`
/// its tokens. `known`: seams of the template, looked at before it is asked; what had to be found
/// out is added to `found` if that is not null. The result depends on `known` and the messages
/// alone.
std::vector<Span> assistant_spans(const Json& messages, const std::string& text,
                                  const Encoding& encoding, const Tokenizer& tokenizer,
                                  const SpanRender& render, const Seams& known = {},
                                  Seams* found = nullptr);

}  // namespace lorry::text
