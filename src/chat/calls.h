// The tool calls of messages: whether a text shows them, and how they are written into the content.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace lorry::chat {

/// Whether a message has a list of tool calls with something in it.
bool has_calls(const Json& message);

/// What holds a call's name and arguments: its "function", or the call itself.
Json& function_of(Json& call);
const Json& function_of(const Json& call);

/// json.dumps(value, ensure_ascii=False): what Python writes where arguments are a string.
std::string python_json(const Json& value);

/// What of a text follows the call's name; nullopt if it does not show the call: its name, or all
/// of the texts among its arguments, are missing.
std::optional<std::string_view> after_call(const Json& call, std::string_view text);

/// Appends the calls to the content, a line of JSON each, for templates that do not show them.
void fold_calls(Json& message);

}  // namespace lorry::chat
