// The columns of a data set, found by the names that parts of rows go by.
#pragma once

#include <arrow/type_fwd.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "data/row_rules.h"

namespace lorry::data {

using Names = std::span<const char* const>;

/// In lower case (ASCII).
std::string lower(std::string text);

/// The struct of the turns of a column: of a list of turns, or of turns as columns (a struct of
/// lists, as `datasets` stores a Sequence of dicts). Null where turns are no structs.
const arrow::DataType* turn_struct(const arrow::DataType& type);

/// Rows in which one column's text has another's in it.
struct Overlap {
  int both = 0;            ///< rows with text in both
  int within = 0;          ///< of them: the second is in the first
  int64_t part_bytes = 0;  ///< of the second, in all
};

/// What it is given must outlive it.
class NamedColumns {
 public:
  NamedColumns(const arrow::Schema& schema, const std::vector<Json>& sample,
               const RowOptions& options);

  /// Invalid input for parts that there are not, and columns that there are not.
  Result<> check_options() const;

  /// The column of a name, in any case; empty if there is none or it is to be ignored.
  std::string of(const std::string& name) const;
  bool has(const std::string& name) const { return !of(name).empty(); }
  /// Whether a row of the sample holds anything in it.
  bool has_values(const std::string& column) const;
  /// The columns of a list of names that play no part in `rules` and were given none, those with
  /// values first. `user` and `assistant` count only where there are both.
  std::vector<std::string> all(Names list, const RowRules& rules) const;

  /// The column that the user named for a part; null if none.
  const std::string* chosen(std::string_view part) const;
  bool is_chosen(const std::string& column) const;
  /// As if the user had named it.
  void choose(std::string part, std::string column);
  bool any_chosen() const { return !chosen_.empty(); }
  bool is_ignored(const std::string& column) const;

  Overlap overlap(const std::string& whole, const std::string& part) const;
  /// Whether every text of `part` is in that of `whole`, and long enough for that to be no chance.
  bool is_always_within(const std::string& part, const std::string& whole) const;
  /// Whether a column is a template that is filled with the row's `parts`: without them, few texts
  /// are left for many rows.
  bool is_filled_template(const std::string& column, const std::vector<std::string>& parts) const;
  /// All names, for messages.
  std::string names() const;

  const arrow::Schema& schema() const { return schema_; }
  const std::vector<Json>& sample() const { return sample_; }

 private:
  const arrow::Schema& schema_;
  const std::vector<Json>& sample_;
  const RowOptions& options_;
  NamedValues chosen_;
};

}  // namespace lorry::data
