// Marks of rows and turns that say whether they are to be learned.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace lorry::data {

/// Keys of a turn that say whether it is to be learned (`weight`, `train`, ...), or which part of
/// it.
bool is_mark(std::string_view key);
/// Whether the mark says the opposite: true is context, false is learned.
bool marks_context(std::string_view key);
/// The keys for which is_mark holds.
std::span<const char* const> mark_keys();

/// What a mark says: false for 0 and false, true for 1 and true, as a value or as text. Nullopt if
/// it is anything else.
std::optional<bool> mark_value(const Json& value);

/// Whether the turn is to be learned, as far as its marks say. Fails with invalid input for a mark
/// that is not understood.
Result<bool> learned_by_marks(const Json& turn);

}  // namespace lorry::data
