// One Parquet or Arrow file as groups of rows that are read one after another, each by itself.
#pragma once

#include <arrow/type_fwd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "data/source.h"

namespace lorry::data {

/// The batches of a group: at most 1,000 rows each where the format lets us choose, fewer where
/// rows are long; checked through (offsets inside the buffers, strings that are UTF-8). Not
/// thread-safe.
class GroupBatches {
 public:
  virtual ~GroupBatches() = default;
  /// Null at the end.
  virtual Result<std::shared_ptr<arrow::RecordBatch>> next() = 0;
};

/// Thread-safe; groups outlive it.
class ColumnarFile {
 public:
  virtual ~ColumnarFile() = default;
  /// `memory`: bytes that all that is read at a time may hold.
  static Result<std::shared_ptr<ColumnarFile>> open(const SourceFile& file, int64_t memory);

  virtual std::shared_ptr<arrow::Schema> schema() const = 0;
  /// Row groups of Parquet; an Arrow file is one group.
  virtual int64_t groups() const = 0;
  /// Rows of each group. Not `exact`: some number above 0 where there are rows, which is cheaper.
  virtual Result<std::vector<int64_t>> group_rows(bool exact) const = 0;
  virtual Result<std::unique_ptr<GroupBatches>> read_group(int64_t group) const = 0;
};

}  // namespace lorry::data
