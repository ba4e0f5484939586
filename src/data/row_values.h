// Values of raw rows, as the many programs that make data sets write them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace lorry::data {

/// The value of a key; null for what has none, and for the empty key.
const Json& field(const Json& object, const std::string& key);

/// Whether a text is white space, or nothing: such an answer is none.
bool is_blank(std::string_view text);

/// Takes keys whose value is null away, at every depth.
void remove_nulls(Json& value);

/// A list of dicts as `datasets` stores a Sequence of them: {"from": [...], "value": [...]},
/// objects inside of objects likewise. A column that some files lack is null.
bool is_columns(const Json& value);

/// Such columns as a list of objects; anything else as it is.
Result<Json> rows_of_columns(Json value);

/// The answers to one question as SQuAD has them: {"text": [...], "answer_start": [...]}, or a list
/// of objects with both keys. Nullopt for anything else.
std::optional<std::vector<std::string>> answer_texts(const Json& value);

/// What a value is, for messages: "text", "an object with the keys a, b".
std::string described(const Json& value);

/// A string that holds JSON, parsed; anything else as it is. Discarded if it is no JSON.
Json parsed(const Json& value);

}  // namespace lorry::data
