#include "data/whole_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/column_names.h"
#include "data/row_values.h"

namespace lorry::data {

Result<> check_not_wrapped(const std::vector<Json>& sample,
                           const std::function<bool(const std::string&)>& holds_turns) {
  if (sample.size() != 1) return {};
  bool by_number = sample[0].size() > 1;
  for (const auto& [column, value] : sample[0].items()) {
    by_number = by_number && value.is_object() && value.contains("0");
    const bool holds_rows = value.is_array() && !value.empty() && value[0].is_object() &&
                            lower(column) == "data" && !holds_turns(column);
    if (!holds_rows) continue;
    return invalid_input(fmt::format(
        "the source is one object with its rows in \"{}\"; write them as the file (jq -c "
        "'.{}[]' FILE > rows.jsonl)",
        column, column));
  }
  if (!by_number) return {};
  return invalid_input(
      "the source is one object with columns by row number, as pandas' to_json writes it; write "
      "it with orient=\"records\"");
}

Result<> check_rows_are_whole(const NamedColumns& columns, const std::vector<Json>& sample) {
  const auto has = [&](const char* name) { return columns.has(name); };
  if (std::all_of(names::kMessageOfTree.begin(), names::kMessageOfTree.end(), has)) {
    return invalid_input(
        "the rows are single messages of trees (message_id, parent_id): write a row for each way "
        "from a root to a leaf, with its messages as a list of turns in a column `messages`; "
        "--columns text=text learns the messages as texts, each by itself");
  }
  return {};
}

}  // namespace lorry::data
