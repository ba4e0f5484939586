// The rows of a data set's files, one schema for all, as record batches in order.
//
// Text formats (JSON, CSV) are read twice: the first pass learns the types of every row and meets
// every malformed one before anything is written, the second converts. Columnar formats carry their
// schema. Memory is a few blocks of a few MB, whatever the size of the source.
#pragma once

#include <arrow/type_fwd.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "data/source.h"

namespace lorry::data {

/// Where a batch begins. A reader that starts there gives the same rows from there on.
struct Place {
  int64_t file = 0;    ///< index into the files
  int64_t offset = 0;  ///< text: byte in the decompressed file; columnar: row group or batch
  int64_t line = 1;    ///< text: line of `offset`, for messages
  int64_t row = 0;     ///< row of the file
};

struct ReadOptions {
  int64_t block_bytes = 4 << 20;  ///< text cut into blocks of about this size
  int threads = 2;
  int64_t skip_bad_rows = 0;  ///< malformed rows to tolerate
  /// Called for each malformed row that is skipped, from the calling thread, in order.
  std::function<void(const std::string& message)> on_bad_row;
  /// Called between blocks of the first pass, from the calling thread.
  std::function<void(int64_t rows, int64_t bytes_done)> on_scan;
};

struct Batch {
  std::shared_ptr<arrow::RecordBatch> rows;
  Place begin;
  int64_t bytes_done = 0;  ///< of the stored files, so far
};

/// Not thread-safe.
class Reader {
 public:
  virtual ~Reader() = default;
  /// Learns the schema: the first pass of text formats. `bad_rows` counts what was skipped.
  /// Fails on the first malformed row that is not tolerated, naming file and line.
  virtual Result<> scan() = 0;
  /// Takes the schema from an earlier scan of the same files.
  virtual void set_schema(std::shared_ptr<arrow::Schema> schema) = 0;
  /// After `scan` or `set_schema`. Metadata of the schema belongs to the reader.
  virtual std::shared_ptr<arrow::Schema> schema() const = 0;
  virtual int64_t bad_rows() const = 0;
  /// Where `next` goes on; the beginning unless set.
  virtual Result<> seek(const Place& place) = 0;
  /// nullopt at the end.
  virtual Result<std::optional<Batch>> next() = 0;
};

/// What a reader answers when the files hold no rows; names them.
Error no_rows(const std::vector<SourceFile>& files);

/// A reader for files of one format.
Result<std::unique_ptr<Reader>> open_reader(std::vector<SourceFile> files, ReadOptions options);

}  // namespace lorry::data
