// Whether the rows of a source are examples by themselves, told by the first few.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "data/named_columns.h"

namespace lorry::data {

/// Refuses a file that is one object with its rows inside. `holds_turns`: whether a column is a
/// list of turns, and so no list of rows.
Result<> check_not_wrapped(const std::vector<Json>& sample,
                           const std::function<bool(const std::string&)>& holds_turns);

/// Refuses single messages of trees and parts of texts, which would be learned as texts or not
/// understood.
Result<> check_rows_are_whole(const NamedColumns& columns, const std::vector<Json>& sample);

}  // namespace lorry::data
