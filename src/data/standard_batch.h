// Raw record batches as standardized ones, column by column where their types allow it.
//
// What becomes of a row is decided by standardize_row (conversations.h). Rows of the usual shapes
// (lists of {role, content}, columns of strings) are copied from array to array without a JSON
// value between; whatever is unusual about a row sends that row through standardize_row.
#pragma once

#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "data/conversations.h"

namespace lorry::data {

/// The columns that a standardized data set has only where some row needs them.
struct OptionalColumns {
  bool reasoning_content = false, tool_calls = false, tool_call_id = false, name = false;
  bool weight = false;
  bool tools = false;
  bool segments = false;

  void add(const OptionalColumns& other);
  void add(const StandardRow& row);
  /// Whether these are enough for rows that need `other`.
  bool include(const OptionalColumns& other) const;
  /// Their names as a JSON array, and back.
  Json to_json() const;
  static OptionalColumns from_json(const Json& names);
  bool operator==(const OptionalColumns&) const = default;
};

/// `conversations`: list of {role, content, ...}, and `tools`; or `text`, and `segments`.
std::shared_ptr<arrow::Schema> standard_schema(RowFormat format, const OptionalColumns& columns);

/// A row that is left out, or kept with a note.
struct LeftOutRow {
  int64_t row = 0;  ///< of the raw batch
  std::string reason;
  std::string malformed;  ///< what is wrong with it; empty where it is only of no use
};

/// One raw batch, standardized.
struct StandardBatch {
  /// The rows that are kept, in order. Null if `needed` has a column that was not asked for.
  std::shared_ptr<arrow::RecordBatch> rows;
  std::vector<LeftOutRow> left_out;
  std::vector<LeftOutRow> noted;       ///< rows that are kept; one entry a note
  OptionalColumns needed;              ///< by the rows that are kept
  std::set<std::string> placeholders;  ///< names of {{name}} that were left unfilled
  std::set<std::string> filled;
};

/// The reason of rows that standardize_row refuses.
inline constexpr char kMalformed[] = "malformed";

/// `batch` must be valid (RecordBatch::ValidateFull). Memory: about the size of the batch once
/// more. Fails with unavailable or unsupported if the rows do not fit one batch. Thread-safe.
Result<StandardBatch> standardize_batch(const RowRules& rules, const OptionalColumns& columns,
                                        const arrow::RecordBatch& batch);

/// The same through standardize_row alone, for comparison.
Result<StandardBatch> standardize_batch_slowly(const RowRules& rules,
                                               const OptionalColumns& columns,
                                               const arrow::RecordBatch& batch);

}  // namespace lorry::data
