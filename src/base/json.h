// JSON values. Objects keep the order of their keys: chat templates print them (`tojson`), and
// configuration files are written back as they were read.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace lorry {

using Json = nlohmann::ordered_json;

/// Parses one JSON document, nested at most 500 deep. The error says line and column in `what`.
Result<Json> parse_json(std::string_view text, std::string_view what);

/// Writes `value`; bytes that are not UTF-8 become U+FFFD. `indent` < 0 writes one line.
std::string dump_json(const Json& value, int indent = -1);

}  // namespace lorry
