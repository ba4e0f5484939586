// Objects that are read by byte range: as a file of random access, or as a stream that reads ahead.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"

namespace arrow::io {
class InputStream;
class RandomAccessFile;
}  // namespace arrow::io

namespace lorry::net {

/// One immutable object of known size, read by range. Thread-safe.
class RangeSource {
 public:
  virtual ~RangeSource() = default;
  virtual int64_t size() const = 0;
  /// For messages.
  virtual const std::string& name() const = 0;
  /// Fills `into` with the bytes from `offset` on; all of them, or an error.
  virtual Result<> read(int64_t offset, std::span<char> into) = 0;
};

/// Memory that all streams that read ahead and all uploads of the process share, in bytes
/// (default 64 MB). Each may always hold one block whatever the others hold.
void set_transfer_memory(int64_t bytes);
int64_t transfer_memory();

/// Thread-safe ReadAt that goes straight to `source`.
std::shared_ptr<arrow::io::RandomAccessFile> open_range_file(std::shared_ptr<RangeSource> source);

/// The same object, where a small one (64 kB at most) is read whole, once, when any part of it is
/// first asked for: many small files cost one request each. Their bytes stay as long as the result
/// does, in all no more than a quarter of transfer_memory(); those beyond are read as they are
/// asked for.
std::shared_ptr<RangeSource> keep_small(std::shared_ptr<RangeSource> source);

/// Sequential from `offset`, keeping several ranges in flight. `first`: bytes that are there
/// already and begin at `offset` (of a first request that found out the size).
std::shared_ptr<arrow::io::InputStream> open_range_stream(std::shared_ptr<RangeSource> source,
                                                          int64_t offset, std::string first = {});

}  // namespace lorry::net
