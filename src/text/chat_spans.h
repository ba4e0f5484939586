// Where in a rendered conversation the assistant speaks.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "text/tokenizer.h"

namespace lorry::text {

using Span = std::pair<size_t, size_t>;  ///< bytes [begin, end)

/// Renders prepared messages.
using SpanRender =
    std::function<Result<std::string>(const Json& messages, bool add_generation_prompt)>;

/// One span for each assistant message of `messages`, in order: from behind its header up to and
/// with its end-of-turn token. `text` is the rendering of all messages, `encoding` its tokens.
std::vector<Span> assistant_spans(const Json& messages, const std::string& text,
                                  const Encoding& encoding, const Tokenizer& tokenizer,
                                  const SpanRender& render);

}  // namespace lorry::text
