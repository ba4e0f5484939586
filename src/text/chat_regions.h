// Where the words of each message stand in a rendered conversation.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/chat_spans.h"

namespace lorry::text {

/// One range a message, from the first to behind the last of its words; none for a message that has
/// no words, or that the text does not show.
using Regions = std::vector<std::optional<Span>>;

/// Renders the messages once more with marks in their contents, reasoning and calls: what is left
/// without the marks must be the text, which it is unless a template looks at what is said. Then
/// nullopt, and where the messages do not stand one behind the other.
std::optional<Regions> find_regions(const Json& messages, const std::string& text,
                                    const SpanRender& render);

}  // namespace lorry::text
