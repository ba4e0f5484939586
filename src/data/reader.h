// The rows of a data set's files, one schema for all, as record batches in order.
//
// Columnar formats carry their schema. Text formats (JSON, CSV) do not, and a type can change in
// the last row: a text reader guesses the schema from a look at some of the rows, learns the types
// of all rows while it converts them, and in the end says whether the guess was right. Where it was
// not, the rows are read again. The batches that count are those of the schema of all rows,
// whatever was guessed. Memory is bounded by an option, whatever the size of the source.
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

/// A malformed row of a text file.
struct BadRow {
  std::string path;
  int64_t line = 0;
  std::string what;
};

struct ReadOptions {
  int64_t block_bytes = 1 << 20;  ///< text cut into blocks of about this size
  int64_t memory = 256LL << 20;   ///< bytes to hold at a time, as far as single rows allow
  int threads = 2;
  bool count_rows = false;    ///< `on_scan` needs the very number of rows of columnar files
  int64_t skip_bad_rows = 0;  ///< malformed rows to tolerate
  /// Called for each malformed row that is skipped, from the calling thread, in order.
  std::function<void(const BadRow&)> on_bad_row;
  /// Called by `scan` and `settle` for each batch that `next` would give: where it begins, its
  /// rows, bytes of the stored files so far. From the calling thread, in order.
  std::function<void(const Place&, int64_t rows, int64_t bytes_done)> on_scan;
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
  /// Learns the schema of all rows: reads text through, opens every columnar file.
  /// Fails on the first malformed row that is not tolerated, naming file and line.
  virtual Result<> scan() = 0;
  /// Instead of `scan`: a guess where a scan would read all the rows.
  virtual Result<> begin() = 0;
  /// After `scan`, `begin` or `restore`. Metadata of the schema belongs to the reader.
  virtual std::shared_ptr<arrow::Schema> schema() const = 0;
  virtual int64_t bad_rows() const = 0;
  /// Where `next` goes on; the beginning unless set.
  virtual Result<> seek(const Place& place) = 0;
  /// nullopt at the end, or where a row does not fit a guessed schema.
  virtual Result<std::optional<Batch>> next() = 0;
  /// After `next` gave nullopt: whether the schema is that of all rows.
  virtual bool is_settled() const { return true; }
  /// Where it is not: takes a better one and goes back to the beginning. Ends within a few calls.
  virtual Result<> settle() { return {}; }
  /// What was learnt before the last batch of `next`, for an interrupted import; `restore` takes it
  /// in place of `scan` or `begin`, and fails if it is of something else.
  virtual Json state() const = 0;
  virtual Result<> restore(const Json& state) = 0;
};

/// What a reader answers when the files hold no rows; names them.
Error no_rows(const std::vector<SourceFile>& files);

/// A reader for files of one format.
Result<std::unique_ptr<Reader>> open_reader(std::vector<SourceFile> files, ReadOptions options);

}  // namespace lorry::data
