// Compressed streams as plain ones.
#pragma once

#include <arrow/io/interfaces.h>

#include <cstdint>
#include <memory>

#include "data/source.h"

namespace lorry::data {

/// `stored` decompressed, read forward in bounded memory; several streams one after another are
/// one. Not for kNone.
arrow::Result<std::shared_ptr<arrow::io::InputStream>> decompress(
    Compression compression, std::shared_ptr<arrow::io::InputStream> stored);

/// Deflated bytes of a zip archive; fails at the end if they have another size or CRC-32.
arrow::Result<std::shared_ptr<arrow::io::InputStream>> inflate(
    const ZippedMember& member, std::shared_ptr<arrow::io::InputStream> stored);

}  // namespace lorry::data
