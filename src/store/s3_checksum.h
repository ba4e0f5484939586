// The checksums that S3 keeps of objects: x-amz-checksum-*.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/http.h"

namespace lorry::store {

std::string base64(std::string_view bytes);
/// The big-endian bytes of `crc` in base64, as x-amz-checksum-crc32c has them.
std::string base64_crc(uint32_t crc);

/// Compares `body`, a whole object, with what the server sent along: what is wrong, or nullopt. An
/// object without a checksum of the whole (none, or one "of parts") passes.
std::optional<std::string> wrong_checksum(const net::Response& response, std::string_view body);

/// CRC-64/NVME, by table.
uint64_t crc64nvme(std::string_view bytes);

}  // namespace lorry::store
