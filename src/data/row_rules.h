// How the rows of a data set are understood: which columns play which part.
#pragma once

#include <arrow/type_fwd.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "data/roles.h"

namespace lorry::data {

using NamedValues = std::vector<std::pair<std::string, std::string>>;

/// What the user says about rows; what is left empty is recognised by the columns.
struct RowOptions {
  /// "" or "auto", "sharegpt", "messages" (or "openai"), "alpaca", "prompt-completion", "text".
  std::string format;
  /// `--columns prompt=question,completion=answer`: {part, its column}.
  NamedValues columns;
  /// `--ignore-columns`: play no part, whatever they are called.
  std::vector<std::string> ignored;
  /// `--roles customer=user`: {role in the data, what it means}.
  RoleNames roles;
  /// `--prefer chosen`: of preference pairs the answers of this column. Empty: such data is
  /// refused.
  std::string prefer;
  /// `--set name=value`: fills {{name}} in every string.
  NamedValues placeholders;

  /// All of them, for digests of a stage's inputs.
  Json to_json() const;
};

enum class RowFormat { kShareGpt, kMessages, kAlpaca, kPromptCompletion, kText };
std::string_view row_format_name(RowFormat format);

/// Which columns play which part. Empty names are parts that the data set does not have.
struct RowRules {
  RowFormat format = RowFormat::kMessages;
  std::string conversation;  ///< ShareGPT, messages: list of turns
  std::string role_key, content_key;
  std::string prompt, completion;         ///< Alpaca and pairs: text or turns
  std::string input, history, reasoning;  ///< beside them
  std::string text;
  std::string system;  ///< a system message for any of them
  std::string tools;   ///< JSON string or list
  /// Columns that would be a format by themselves, each with what goes with it. Rows that have
  /// nothing where `format` looks, but one of these, are of another format than the rest.
  std::vector<std::vector<std::string>> other_formats;
  /// Columns by which a row says whether it is to be learned: `label`, `weight`.
  std::vector<std::string> marks;
  /// Columns that are called like a part of the prompt and are none: rows in which they hold text
  /// that the turns do not repeat would be learned without it, and are malformed.
  std::vector<std::string> watched;
  /// Pictures and sounds: rows that have any are malformed.
  std::vector<std::string> media;
  RoleNames roles;
  /// Nulls inside tool calls and tools are absent keys (columns of structs have no other way).
  bool nulls_are_absent = false;
  NamedValues placeholders;

  /// All of the columns that have a part in a row, unfilled ones as "".
  std::array<const std::string*, 9> parts() const {
    return {&conversation, &prompt, &completion, &input, &history,
            &reasoning,    &text,   &system,     &tools};
  }
  /// Whether one of them is `column`.
  bool uses(const std::string& column) const {
    const auto all = parts();
    return std::any_of(all.begin(), all.end(), [&](const auto* part) { return *part == column; });
  }
  /// Whether standardize_row looks at `column`.
  bool needs(const std::string& column) const;
};

/// Finds the rules for rows like `sample` (the first few). Fails with invalid input if the columns
/// are not understood or one that is named is missing, if several could play the same part, if a
/// column seems to belong to the prompt and would be left out, and for preference pairs without
/// `prefer`; the error names the columns and the flag that decides.
Result<RowRules> find_rules(const arrow::Schema& schema, const std::vector<Json>& sample,
                            const RowOptions& options);

/// What standardisation leaves out: columns that play no part, and keys of turns, as
/// "messages[].weight" (those of `sample` where the turns are JSON and no struct).
std::vector<std::string> unused_columns(const arrow::Schema& schema,
                                        const std::vector<Json>& sample, const RowRules& rules);

/// The parts that columns play, as in "prompt: question + context; answer: response".
std::string describe_parts(const RowRules& rules);

}  // namespace lorry::data
