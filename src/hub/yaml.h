// YAML 1.1 as JSON, as far as a repository's metadata needs it.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace lorry::hub {

/// The first document, or null if there is none. Plain scalars become booleans, integers, floats or
/// null as PyYAML's safe loader resolves them; time stamps stay text; keys become strings, and of a
/// key that stands twice the last value counts, as there. Fails with invalid input, naming `what`
/// and the line, on bad syntax, unknown anchors, and documents that grow beyond all measure through
/// their aliases.
Result<Json> parse_yaml(std::string_view text, std::string_view what);

}  // namespace lorry::hub
