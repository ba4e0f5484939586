// Every field that a request of OpenAI's or vLLM's API may have, and what becomes of it: the one
// table behind docs/serving.md.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace lorry::serve {

enum class Route { kChat, kCompletions };

struct RefusedField {
  std::string name;
  std::string allowed;  ///< the values that it may have, as JSON; empty: none
};
/// The first field of `body` that would change the answer and is not supported; nullopt if there is
/// none. One whose value asks for nothing is let pass.
std::optional<RefusedField> refused_field(const Json& body, Route route);

/// Fields that no API has for this route. They change nothing.
std::vector<std::string> unknown_fields(const Json& body, Route route);

/// Whether a value asks for nothing: clients send their defaults.
bool asks_for_nothing(const Json& value);

}  // namespace lorry::serve
