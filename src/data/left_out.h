// Whether a row would be learned without a part of its prompt.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "data/conversations.h"

namespace lorry::data {

/// Whether the value holds text that none of the turns holds. Keys and names of roles aside.
bool adds_text(const Json& value, const std::vector<Turn>& turns);

/// Whether the value is null, or holds nulls, blank strings and empty lists alone.
bool holds_nothing(const Json& value);

/// Fails with invalid input if one of rules.watched adds text to the row, or one of rules.media
/// holds anything; says by which flag to decide.
Result<> check_left_out(const RowRules& rules, const Json& row, const StandardRow& done);

/// Fails with invalid input if text of a column of `columns` seems to belong to the prompts of the
/// sample: it shares words with its row's answer that the prompt does not have, more than with
/// other rows' answers. Rendered rows (prompt and answer in one text) and repetitions do not count.
Result<> check_shared_words(const RowRules& rules, const std::vector<Json>& sample,
                            const std::vector<std::string>& columns);

}  // namespace lorry::data
