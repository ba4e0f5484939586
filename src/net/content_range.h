// The header that says which part of a resource came.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace lorry::net {

/// "bytes 0-9/100"; "bytes */100" has first = last = -1. total is -1 when the server does not know.
struct ContentRange {
  int64_t first = -1, last = -1, total = -1;
};

/// RFC 9110, section 14.4; nullopt for anything else.
std::optional<ContentRange> parse_content_range(std::string_view value);

}  // namespace lorry::net
