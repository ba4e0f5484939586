// The numbers that Python's json.dumps writes and that are no JSON: NaN, Infinity, -Infinity.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace lorry::data {

/// `json` with null in place of these numbers; nullopt if there are none. What is inside of strings
/// stays. `datasets` reads them as null too, but for numbers that are columns by themselves.
std::optional<std::string> without_non_finite_numbers(std::string_view json);

}  // namespace lorry::data
