// The seam behind Bucket: one implementation a kind of store, chosen by URI scheme in bucket.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "store/bucket.h"

namespace lorry::store {

/// An object on its way. `stream` is open until `commit` or `abandon`; exactly one of them is
/// called, once. Not thread-safe.
class PendingObject {
 public:
  virtual ~PendingObject() = default;
  virtual arrow::io::OutputStream& stream() = 0;
  /// Makes the object durable, then, with the guard's consent (if there is one), visible. The guard
  /// is asked as late as can be, and again before each try.
  virtual Result<> commit(const Guard& guard) = 0;
  /// Leaves nothing behind, as far as the store lets it.
  virtual void abandon() = 0;
  /// Of what went through `stream`; asked after `commit`.
  virtual int64_t size() const = 0;
  virtual uint32_t crc32c() const = 0;
};

/// What a store must do. Paths have been checked and are relative to the bucket. Thread-safe.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual bool is_local() const { return false; }
  virtual Result<std::optional<ObjectInfo>> stat(const std::string& path) const = 0;
  virtual Result<std::vector<ObjectInfo>> list(const std::string& path, bool recursive) const = 0;
  virtual Result<std::shared_ptr<arrow::io::RandomAccessFile>> open_input(
      const std::string& path) const = 0;
  virtual Result<std::shared_ptr<arrow::io::InputStream>> open_stream(const std::string& path,
                                                                      int64_t offset) const = 0;
  /// A whole object; the default reads a stream to its end.
  virtual Result<std::string> read(const std::string& path) const;
  /// The default copies the object to a temporary file (spool.h).
  virtual Result<std::shared_ptr<arrow::io::RandomAccessFile>> open_mapped(
      const std::string& path) const;
  virtual Result<std::unique_ptr<PendingObject>> create(const std::string& path) const = 0;
  virtual Result<> remove(const std::string& path) const = 0;
  /// The default copies and removes. The guard is asked before each.
  virtual Result<> move(const std::string& from, const std::string& to, const Guard& guard) const;
};

/// The consent of a guard that may be empty.
inline Result<> ask(const Guard& guard) { return guard ? guard() : Result<>(); }

}  // namespace lorry::store
