// Remote objects as local files, for access at random.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "base/result.h"

namespace arrow::io {
class InputStream;
class RandomAccessFile;
}  // namespace arrow::io

namespace lorry::store {

/// Copies the `size` bytes of `from` to a file in $TMPDIR (or /tmp) that has no name, so that it
/// goes with the process, and maps it. `name` is for messages. Fails with unavailable when the disk
/// is too small, corrupt data when the stream is shorter or longer than `size`.
Result<std::shared_ptr<arrow::io::RandomAccessFile>> spool(arrow::io::InputStream& from,
                                                           int64_t size, std::string_view name);

}  // namespace lorry::store
