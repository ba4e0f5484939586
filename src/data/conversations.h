// One raw row, whatever its data set calls things, as a conversation (or a text).
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "data/row_rules.h"

namespace lorry::data {

struct Turn {
  std::string role;  ///< system, user, assistant or tool
  std::string content;
  std::optional<std::string> tool_calls;  ///< JSON list
  std::optional<std::string> tool_call_id;
  std::optional<std::string> name;
  std::optional<std::string> reasoning_content;
  /// False for an answer that is context alone: the data says so, or it is empty.
  bool learned = true;
};

struct StandardRow {
  std::vector<Turn> turns;
  std::optional<std::string> tools;  ///< JSON list
  std::string text;
  std::optional<std::string> segments;  ///< JSON list of {label, text}: the parts of `text`
  std::string dropped;                  ///< why the row is left out; empty if it is not
  std::set<std::string> notes;          ///< what is to be known about a row that is kept
  std::set<std::string> placeholders;   ///< names that were left unfilled
  std::set<std::string> filled;
};

/// Fails with invalid input, saying what is wrong (an unknown role, a part that is no text), if the
/// row is malformed. Thread-safe.
Result<StandardRow> standardize_row(const RowRules& rules, const Json& row);

}  // namespace lorry::data
