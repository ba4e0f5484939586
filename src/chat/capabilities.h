// Messages as `transformers` hands them to a template; and, for conversations that a template
// cannot take as they are, what it can take (found by rendering small conversations when it is
// loaded) and the smallest change that lets it.
#pragma once

#include <functional>
#include <string>

#include "base/json.h"
#include "base/result.h"

namespace lorry::chat {

struct ChatCapabilities {
  /// How to write an assistant message that has tool calls and no content.
  enum class NoContent { kAbsent, kNull, kEmpty };
  NoContent no_content = NoContent::kAbsent;
  bool renders_tool_calls = true;
  bool needs_call_ids = false;  ///< refuses calls without one of nine letters and digits
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

/// Messages as `transformers` hands them to a template: keys with null dropped, reasoning under its
/// other names. The result is `messages` itself where nothing is to be changed, else `changed`.
/// Fails if they are no list of objects, or empty.
Result<const Json*> prepare_messages(const Json& messages, Json& changed);

/// Lists of parts that are all text become that text where the template would print the list. The
/// result as above.
const Json* join_parts(const Json& prepared, const ChatCapabilities& capabilities, Json& changed);

/// Prepared messages, their parts joined, as the template can take them: arguments as the type it
/// takes, calls that it would leave out as JSON behind the content.
Result<Json> adapt_messages(Json prepared, const ChatCapabilities& capabilities);

}  // namespace lorry::chat
