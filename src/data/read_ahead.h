// Sequential reading of a file whose reads take long (a network): several ranged reads are kept in
// flight, their bytes bounded.
#pragma once

#include <arrow/io/interfaces.h>

#include <cstdint>
#include <memory>

namespace lorry::data {

struct ReadAheadOptions {
  int64_t piece_bytes = 4 << 20;  ///< one ranged read
  int pieces = 4;                 ///< in flight or waiting to be taken: bounds the memory
};

/// The bytes of `file` from `offset` to its end. Threads of its own read; they end with it.
/// Not thread-safe.
std::shared_ptr<arrow::io::InputStream> read_ahead(
    std::shared_ptr<arrow::io::RandomAccessFile> file, int64_t offset,
    ReadAheadOptions options = {});

}  // namespace lorry::data
