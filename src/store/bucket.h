// The bucket: where every stage reads its input and leaves its output.
//
// A bucket is a URI and the store behind it (backend.h); streams and files are Arrow's. Paths are
// relative, with forward slashes ("raw/ds/0/state.json"); what is read from an object store may
// have empty parts ("a//b"). Nothing becomes visible under its final name before it is whole.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace arrow::io {
class InputStream;
class OutputStream;
class RandomAccessFile;
}  // namespace arrow::io

namespace lorry::store {

struct ObjectInfo {
  std::string path;  ///< relative to the bucket
  int64_t size = 0;  ///< bytes; 0 for a directory
  bool is_directory = false;
  /// Changes when the object does: the ETag, or a local file's time of last change. Empty for a
  /// directory.
  std::string etag;
  /// When it was last written, by the store's own clock, in milliseconds since 1970 (most stores
  /// know seconds only); 0 for a directory. Compare it with another of the same bucket, never with
  /// this machine's clock.
  int64_t modified_ms = 0;
};

/// Asked before something becomes visible, or vanishes; its error keeps that from happening.
using Guard = std::function<Result<>()>;

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
  /// Of what was written; valid once `commit` has succeeded.
  int64_t size() const;
  uint32_t crc32c() const;

 private:
  friend class Bucket;
  struct Impl;
  explicit ObjectWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Thread-safe.
class Bucket {
 public:
  /// Opens `uri`: a directory path, created if it is missing and `create` is set, or
  /// s3://NAME[/prefix], gs://..., az://..., which must be there. Fails with not found, unsupported
  /// scheme, or unavailable with the reason.
  static Result<std::shared_ptr<Bucket>> open(const std::string& uri, bool create);
  ~Bucket();

  /// The same bucket, in which nothing is written or removed but with the guard's consent. Whoever
  /// waits out a lost network asks it again before each try.
  std::shared_ptr<Bucket> guarded(Guard guard) const;

  /// As the user wrote it, for messages.
  const std::string& uri() const;
  /// A directory of this machine (a mount included): files can be mapped.
  bool is_local() const;

  /// nullopt if there is no such object or directory.
  Result<std::optional<ObjectInfo>> stat(std::string_view path) const;
  Result<bool> exists(std::string_view path) const;
  /// Direct children of a directory, by name; empty if it is not there. Temporary objects of
  /// writers are left out.
  Result<std::vector<ObjectInfo>> list(std::string_view path, bool recursive = false) const;

  /// A whole small object.
  Result<std::string> read(std::string_view path) const;
  /// For ranged reads: ReadAt may be called from several threads. A local bucket maps the file, a
  /// remote one asks for each range.
  Result<std::shared_ptr<arrow::io::RandomAccessFile>> open_input(std::string_view path) const;
  /// For reading from `offset` to the end, once: read ahead from a remote bucket, plain reads
  /// (nothing is mapped, so memory does not grow) from a local one.
  Result<std::shared_ptr<arrow::io::InputStream>> open_stream(std::string_view path,
                                                              int64_t offset = 0) const;
  /// In memory as a map, for access at random. A remote object is first copied to an unlinked file
  /// in $TMPDIR; unavailable, with both sizes, when it does not fit there.
  Result<std::shared_ptr<arrow::io::RandomAccessFile>> open_mapped(std::string_view path) const;

  Result<std::unique_ptr<ObjectWriter>> create(std::string_view path) const;
  /// create + write + commit.
  Result<> write(std::string_view path, std::string_view bytes) const;
  /// Gives an object another name, in place of what is there. Where the store cannot, a copy is
  /// written and the old one removed.
  Result<> move(std::string_view from, std::string_view to) const;
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
