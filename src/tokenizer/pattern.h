// What Split and Replace look for: {"String": ...} or {"Regex": ...}.
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "tokenizer/regex.h"

namespace lorry::tokenizer {

/// `where` names the component in errors.
Result<Regex> parse_pattern(const Json& json, std::string_view where);

/// Fields of a component; the error names component and field.
Result<std::string> string_field(const Json& json, const char* name, std::string_view where);
Result<bool> bool_field(const Json& json, const char* name, std::string_view where);
bool bool_field_or(const Json& json, const char* name, bool otherwise);

/// The "type" of a component, "" if it has none.
std::string type_of(const Json& json);

}  // namespace lorry::tokenizer
