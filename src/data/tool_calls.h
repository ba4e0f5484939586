// Calls of tools, as the template takes them.
#pragma once

#include <optional>

#include "base/json.h"

namespace lorry::data {

/// A list of {"type": "function", "function": {"name", "arguments"}}, from one call or several, as
/// objects or JSON strings, in OpenAI's form or as {"name", "arguments"}. Nullopt if one of them is
/// no call, or there is none.
std::optional<Json> tool_calls(const Json& given);

}  // namespace lorry::data
