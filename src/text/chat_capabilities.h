// What a template can take, found by rendering small conversations when it is loaded, and the
// smallest change that lets it take what it cannot. Where `transformers` renders a conversation
// whole, nothing is changed; only where it would raise or leave something out.
#pragma once

#include <functional>
#include <string>

#include "base/json.h"
#include "base/result.h"

namespace lorry::text {

struct ChatCapabilities {
  /// How to write an assistant message that has tool calls and no content.
  enum class NoContent { kAbsent, kNull, kEmpty };
  NoContent no_content = NoContent::kAbsent;
  bool renders_tool_calls = true;
  bool takes_object_arguments = true;
  bool takes_string_arguments = true;
  /// Content as a list of {"type": "text", "text": ...}.
  bool takes_parts_user = true;
  bool takes_parts_assistant = true;
  bool takes_parts_system = true;
  bool takes_parts_tool = true;

  bool takes_parts(std::string_view role) const;
};

/// Renders messages with tools (array or null).
using ProbeRender = std::function<Result<std::string>(const Json& messages, const Json& tools)>;

ChatCapabilities probe_capabilities(const ProbeRender& render);

/// Messages as `transformers` hands them to a template (keys with null dropped, reasoning under its
/// other names), then adapted to `capabilities`. Fails if they are no list of objects, or empty.
Result<Json> prepare_messages(const Json& messages, const ChatCapabilities& capabilities);

}  // namespace lorry::text
