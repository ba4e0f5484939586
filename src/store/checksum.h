// Size and CRC-32C of a stored object, read back.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "store/bucket.h"

namespace lorry::store {

struct Checksum {
  int64_t size = 0;
  uint32_t crc32c = 0;
  bool operator==(const Checksum&) const = default;
};

/// Reads the whole object. `on_bytes`, if given, sees each piece (for another digest, for
/// progress). Fails as `open_stream` does, or cancelled.
Result<Checksum> read_checksum(const Bucket& bucket, const std::string& path,
                               const std::function<void(std::string_view)>& on_bytes = {});

}  // namespace lorry::store
