// One raw row, whatever its data set calls things, as a conversation (or a text).
#pragma once

#include <arrow/type_fwd.h>
#include <algorithm>
#include <array>

#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace lorry::data {

using NamedValues = std::vector<std::pair<std::string, std::string>>;

/// How rows are understood.
enum class RowFormat { kShareGpt, kMessages, kAlpaca, kPromptCompletion, kText };
std::string_view row_format_name(RowFormat format);

/// Which columns play which part. Empty names are parts that the data set does not have.
struct RowRules {
  RowFormat format = RowFormat::kMessages;
  std::string conversation;  ///< ShareGPT, messages: list of turns
  std::string role_key, content_key;
  std::string instruction, input, output, history;  ///< Alpaca
  std::string prompt, completion;
  std::string text;
  std::string system;  ///< a system message for any of them
  std::string tools;   ///< JSON string or list
  /// Columns that would be a format by themselves, each with what goes with it. Rows that have
  /// nothing where `format` looks, but one of these, are of another format than the rest.
  std::vector<std::vector<std::string>> other_formats;
  /// Columns by which a row says whether it is to be learned: `label`, `weight`.
  std::vector<std::string> marks;
  /// All of the columns that have a part in a row, unfilled ones as "".
  std::array<const std::string*, 10> parts() const {
    return {&conversation, &instruction, &input, &output, &history,
            &prompt,       &completion,  &text,  &system, &tools};
  }
  /// Whether one of them is `column`.
  bool uses(const std::string& column) const {
    const auto all = parts();
    return std::any_of(all.begin(), all.end(), [&](const auto* part) { return *part == column; });
  }

  /// Nulls inside tool calls and tools are absent keys (columns of structs have no other way).
  bool nulls_are_absent = false;
  NamedValues placeholders;
};

/// Finds the rules for rows like `sample` (the first few). `format` is "" or "auto" or a name of
/// docs/bucket.md; `columns` says {part, column}. Fails with invalid input, naming the columns
/// that there are, if they are not understood or one is missing.
Result<RowRules> find_rules(const arrow::Schema& schema, const std::vector<Json>& sample,
                            const std::string& format, const NamedValues& columns,
                            NamedValues placeholders);

/// What standardisation leaves out: columns that play no part, and keys of turns, as
/// "messages[].weight" (those of `sample` where the turns are JSON and no struct).
std::vector<std::string> unused_columns(const arrow::Schema& schema,
                                        const std::vector<Json>& sample, const RowRules& rules);

/// What standardize_row makes of a role's name ("gpt": assistant), in any case; empty for names
/// that are no role and for function_call and its like, whose content becomes a call.
std::string_view turn_role(std::string_view name);

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
  std::string dropped;                 ///< why the row is left out; empty if it is not
  std::set<std::string> notes;         ///< what is to be known about a row that is kept
  std::set<std::string> placeholders;  ///< names that were left unfilled
  std::set<std::string> filled;
};

/// Keys of a turn that say whether it is to be learned (`weight`, `train`, ...), or which part of
/// it.
bool is_mark(std::string_view key);
/// The keys for which is_mark holds.
std::span<const char* const> mark_keys();

/// Whether a text is white space, or nothing: such an answer is none.
bool is_blank(std::string_view text);

/// What a mark says: false for 0 and false, true for 1 and true, as a value or as text. Nullopt if
/// it is anything else.
std::optional<bool> mark_value(const Json& value);

/// Fails with invalid input, saying what is wrong (an unknown role, a part that is no text), if the
/// row is malformed. Thread-safe.
Result<StandardRow> standardize_row(const RowRules& rules, const Json& row);

}  // namespace lorry::data
