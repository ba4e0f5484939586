// Standardized rows into one record batch.
#pragma once

#include <arrow/builder.h>
#include <arrow/record_batch.h>

#include <memory>
#include <string_view>

#include "data/standard_batch.h"

namespace lorry::data {

/// A turn whose strings lie elsewhere. Views without data are absent fields.
struct TurnView {
  std::string_view role, content;
  std::string_view reasoning_content, tool_calls, tool_call_id, name;
  std::string_view weight = {};  ///< "0": not learned
};

/// Not thread-safe. Turns are appended first, then the row that they are of.
class StandardBuilder {
 public:
  StandardBuilder(RowFormat format, const OptionalColumns& columns);

  arrow::Status reserve(int64_t rows, int64_t bytes);
  arrow::Status append_turn(const TurnView& turn);
  /// Ends a conversation; `tools` without data is absent.
  arrow::Status end_row(std::string_view tools);
  /// `segments` without data is absent.
  arrow::Status append_text(std::string_view text, std::string_view segments = {});
  arrow::Status append(const StandardRow& row);

  arrow::Result<std::shared_ptr<arrow::RecordBatch>> finish();

 private:
  arrow::Result<std::shared_ptr<arrow::Array>> finish_conversations();

  const OptionalColumns columns_;
  const std::shared_ptr<arrow::Schema> schema_;
  const bool is_text_;
  int64_t rows_ = 0;
  arrow::TypedBufferBuilder<int32_t> row_ends_;  ///< offsets of `conversations`
  arrow::StringBuilder text_, role_, content_, reasoning_content_, tool_calls_, tool_call_id_,
      name_, weight_, tools_, segments_;
};

}  // namespace lorry::data
