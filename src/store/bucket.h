// The bucket: where every stage reads its input and leaves its output.
//
// A bucket is a URI and the store behind it (backend.h), today a local directory. Streams and files
// are Arrow's. Paths are relative to the bucket, with forward slashes
// ("raw/ds/0/state.json"). Nothing becomes visible under its final name before it is whole: writers
// write beside it and rename, so a reader never meets half an object.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace arrow::io {
class OutputStream;
class RandomAccessFile;
}  // namespace arrow::io

namespace lorry::store {

struct ObjectInfo {
  std::string path;  ///< relative to the bucket
  int64_t size = 0;  ///< bytes; 0 for a directory
  bool is_directory = false;
};

/// One object being written. Destroyed without `commit`, it leaves nothing behind.
/// Not thread-safe.
class ObjectWriter {
 public:
  ~ObjectWriter();
  ObjectWriter(const ObjectWriter&) = delete;
  ObjectWriter& operator=(const ObjectWriter&) = delete;

  /// The stream to write to; owned by this writer, closed by `commit`.
  arrow::io::OutputStream& stream();
  Result<> write(std::string_view bytes);
  /// Flushes to stable storage and makes the object visible under its name.
  Result<> commit();

 private:
  friend class Bucket;
  struct Impl;
  explicit ObjectWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Thread-safe.
class Bucket {
 public:
  /// Opens `uri`: a directory path, created if it is missing and `create` is set. Fails with
  /// not found, unsupported scheme, or unavailable with the operating system's reason.
  static Result<std::shared_ptr<Bucket>> open(const std::string& uri, bool create);
  ~Bucket();

  /// As the user wrote it, for messages.
  const std::string& uri() const;

  /// nullopt if there is no such object or directory.
  Result<std::optional<ObjectInfo>> stat(std::string_view path) const;
  Result<bool> exists(std::string_view path) const;
  /// Direct children of a directory, by name; empty if it is not there. Temporary objects of
  /// writers are left out.
  Result<std::vector<ObjectInfo>> list(std::string_view path, bool recursive = false) const;

  /// A whole small object.
  Result<std::string> read(std::string_view path) const;
  /// For ranged reads; a local bucket maps the file into memory.
  Result<std::shared_ptr<arrow::io::RandomAccessFile>> open_input(std::string_view path) const;

  Result<std::unique_ptr<ObjectWriter>> create(std::string_view path) const;
  /// create + write + commit.
  Result<> write(std::string_view path, std::string_view bytes) const;
  /// Removes an object or a whole directory; nothing there is not an error.
  Result<> remove(std::string_view path) const;

  /// `{dir}/info.json`, the mark that a stage's output is complete; nullopt if it is not there.
  Result<std::optional<Json>> read_info(std::string_view dir) const;
  Result<> write_info(std::string_view dir, const Json& info) const;

 private:
  struct Impl;
  explicit Bucket(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// "a/b" from "a" and "b"; either may be empty.
std::string join_path(std::string_view a, std::string_view b);

}  // namespace lorry::store
