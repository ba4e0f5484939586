// Where the words of each message stand in a rendered conversation.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace lorry::chat {

using Span = std::pair<size_t, size_t>;  ///< bytes [begin, end)

/// Renders prepared messages.
using SpanRender =
    std::function<Result<std::string>(const Json& messages, bool add_generation_prompt)>;

/// One range a message, from the first to behind the last of its words; none for a message that has
/// no words, or that the text does not show.
using Regions = std::vector<std::optional<Span>>;

/// Renders the messages once more with marks in their contents, reasoning and calls: what is left
/// without the marks must be the text, which it is unless a template looks at what is said. Then
/// nullopt, and where the messages do not stand one behind the other.
std::optional<Regions> find_regions(const Json& messages, const std::string& text,
                                    const SpanRender& render);

/// What a template writes between the words of two messages, by their roles.
class Gaps {
 public:
  /// Those of a text whose regions are known.
  void add(const Json& messages, const std::string& text, const Regions& regions);

  /// What find_regions gives, without rendering: if every byte of the text is a content or one of
  /// these gaps, in one way only. Nullopt otherwise, as it is for contents in which find_regions
  /// would look for tags and white space, reasoning and calls.
  std::optional<Regions> read(const Json& messages, const std::string& text) const;

 private:
  /// By the roles of the messages before and behind, "" at the ends of the text.
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> gaps_;
};

}  // namespace lorry::chat
