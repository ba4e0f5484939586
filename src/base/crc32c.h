// CRC-32C (Castagnoli; RFC 3720 appendix B.4): the checksum of shards, and of S3 objects.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lorry {

/// The checksum of bytes whose first part has checksum `crc` (0 for none), followed by `data`.
uint32_t crc32c(uint32_t crc, const void* data, size_t size);
inline uint32_t crc32c(std::string_view bytes) { return crc32c(0, bytes.data(), bytes.size()); }
/// As crc32c, without the processor's instructions (tests).
uint32_t crc32c_portable(uint32_t crc, const void* data, size_t size);

/// The checksum of a + b from those of a and b, and b's size.
uint32_t crc32c_combine(uint32_t a, uint32_t b, uint64_t size_b);

/// Eight lower-case hex digits, as info.json and state.json record it.
std::string crc32c_hex(uint32_t crc);

}  // namespace lorry
