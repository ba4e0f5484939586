// Lists and dicts as Python prints them, which is what to_csv of pandas writes into a field.
#pragma once

#include <optional>
#include <string_view>

#include "base/json.h"

namespace lorry::data {

/// The value of a Python literal: lists, tuples, dicts with keys of text, strings, numbers, True,
/// False, None. Between dicts the comma may be missing, as where numpy prints them. Nullopt if it
/// is anything else, or more than 64 levels deep.
std::optional<Json> parse_python_literal(std::string_view text);

}  // namespace lorry::data
