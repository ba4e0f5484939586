// A shard: a directory that `datasets.load_from_disk` opens and `save_to_disk` writes.
//
// Arrow IPC stream files (at most 500 MB each), dataset_info.json with the features, and
// state.json, written last, which names the data files in order. docs/bucket.md has the details.
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
#include "store/bucket.h"

namespace lorry::data {

/// Writes one shard. The bytes depend on the rows alone, not on how they were cut into batches.
/// Destroyed without `finish`, it leaves no state.json. Not thread-safe.
///
/// Two writers of the same shard do not harm each other: state.json goes first, then each file
/// takes the place of the earlier one as a whole, then state.json comes, then files that it does
/// not name go.
class ShardWriter {
 public:
  struct Options {
    int64_t max_file_bytes = 500'000'000;  ///< a new data file begins past this
    int64_t rows_per_batch = 1000;         ///< rows a record batch, as `datasets` writes them
    /// Called with each record batch that has been written, as a reader of the file will see it; by
    /// the thread that writes.
    std::function<void(std::shared_ptr<arrow::RecordBatch>)> on_batch;
  };
  /// Removes the state.json of an earlier writer of `dir`: from here on the shard is not whole.
  static Result<std::unique_ptr<ShardWriter>> create(std::shared_ptr<store::Bucket> bucket,
                                                     std::string dir,
                                                     std::shared_ptr<arrow::Schema> schema,
                                                     Options options);
  static Result<std::unique_ptr<ShardWriter>> create(std::shared_ptr<store::Bucket> bucket,
                                                     std::string dir,
                                                     std::shared_ptr<arrow::Schema> schema) {
    return create(std::move(bucket), std::move(dir), std::move(schema), Options());
  }
  ~ShardWriter();

  /// Rows are written by a thread of this writer, so an error may come from a later call. Holds up
  /// to 24 MB of rows, or one row.
  Result<> write(const arrow::RecordBatch& batch);
  int64_t rows() const;
  /// Writes all rows, and waits for it. Only before `finish`, which does it anyway: a record batch
  /// that is not full would be followed by others.
  Result<> flush();
  /// What read_shard_state gives back of this shard: {"key": digest of everything that decides it,
  /// ...}. An object; its fields are merged into what was set before.
  void set_state(const Json& state);
  /// Writes dataset_info.json, then state.json: the shard is complete.
  Result<> finish();

 private:
  struct Impl;
  explicit ShardWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// What a user runs to mend a shard or a file of it: "; run import-dataset again with --fresh".
std::string mend_hint(std::string_view path);

/// What was set_state of the shard in `dir`; nullopt if it is not whole, or another program's.
Result<std::optional<Json>> read_shard_state(const store::Bucket& bucket, const std::string& dir);

/// Puts `state` in the place of what set_state left of a whole shard. Fails as shard_files does.
Result<> write_shard_state(const store::Bucket& bucket, const std::string& dir, const Json& state);

/// A data file as state.json names it; size and checksum are -1 and 0 where another program wrote
/// it.
struct ShardFile {
  std::string path;  ///< in the bucket
  int64_t size = -1;
  uint32_t crc32c = 0;
};
/// Not found if state.json is missing, corrupt data if it is damaged.
Result<std::vector<ShardFile>> shard_files(const store::Bucket& bucket, const std::string& dir);

/// The rows of one shard from the first to the last in bounded memory (a record batch or two),
/// checked through: sizes and checksums of the files where state.json has them, offsets, UTF-8. An
/// error names the file and the stage to run again. Not thread-safe.
class ShardStream {
 public:
  static Result<std::unique_ptr<ShardStream>> open(const store::Bucket& bucket,
                                                   const std::string& dir);
  ~ShardStream();
  std::shared_ptr<arrow::Schema> schema() const;
  /// Never an empty batch; null at the end.
  Result<std::shared_ptr<arrow::RecordBatch>> next();
  int64_t rows() const;  ///< that `next` has given

 private:
  struct Impl;
  explicit ShardStream(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Random access to the rows of one shard; local files are mapped, not read. Accepts data files in
/// IPC stream form in any number, as `save_to_disk` leaves them. Thread-safe.
class ShardReader {
 public:
  /// Fails with not found if state.json is missing and with corrupt data if files contradict it.
  static Result<std::shared_ptr<ShardReader>> open(const store::Bucket& bucket,
                                                   const std::string& dir);
  ~ShardReader();

  int64_t rows() const;
  std::shared_ptr<arrow::Schema> schema() const;
  /// Record batches in order; `batch_start(i)` is the row at which batch i begins.
  int64_t num_batches() const;
  int64_t batch_start(int64_t i) const;
  std::shared_ptr<arrow::RecordBatch> batch(int64_t i) const;
  /// The batch that holds `row`, and the row's place in it.
  std::pair<std::shared_ptr<arrow::RecordBatch>, int64_t> locate(int64_t row) const;

 private:
  struct Impl;
  explicit ShardReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Removes the shards of `dir` from number `from` on. Directories with other names lie below the
/// same directory (a data set whose name goes on with a slash) and stay.
Result<> remove_shards(const store::Bucket& bucket, const std::string& dir, int64_t from);

/// The `features` of dataset_info.json for a schema, as `datasets` writes them, and back.
Json features_from_schema(const arrow::Schema& schema);

/// Row `row` of `batch` as JSON: structs to objects, lists to arrays, binary to strings.
Json row_to_json(const arrow::RecordBatch& batch, int64_t row);

}  // namespace lorry::data
