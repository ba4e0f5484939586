// What a conversation holds and its rendered text does not show: templates leave out what they do
// not know, without a word.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "chat/regions.h"

namespace lorry::chat {

/// The kinds of what a conversation says.
enum class Part {
  kAnswer,
  kCall,
  kWordsBesideCall,   ///< of an assistant's message that has tool calls
  kReasoning,         ///< of the last answer
  kEarlierReasoning,  ///< of answers before it
  kSystem,
  kUser,
  kToolResult,
  kTools,  ///< definitions of tools
};

/// "an answer", "reasoning": for messages, and for the names of counts.
std::string_view name_of(Part part);

struct Loss {
  Part part = Part::kAnswer;
  size_t message = 0;  ///< its place in the conversation; of kTools: in the tools
  std::string words;   ///< how it begins
};

/// The text and reasoning of each message, each call and each tool that the text does not show, in
/// order. `messages` are prepared (capabilities.h). Words are looked for where they should stand,
/// which costs one pass over the text; only where some are missing is the conversation rendered
/// once more, with marks in it (marks.h), since a template may also write words in other ways
/// (escaped, in capitals).
std::vector<Loss> find_losses(const Json& messages, const Json& tools, std::string_view text,
                              const SpanRender& render);

/// Whether a call of the messages is missing in the text, without rendering. Costs nothing where no
/// message has one.
bool loses_calls(const Json& messages, std::string_view text);

}  // namespace lorry::chat
