// SHA-1, where others have chosen it: ids of git's blobs, names of cached files. It tells damage,
// not malice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lorry {

/// Incremental SHA-1 (FIPS 180-4). Not thread-safe.
class Sha1 {
 public:
  void update(std::string_view bytes);
  /// The digest as 40 lower-case hex digits. Ends the object's use.
  std::string hex();

 private:
  void block(const uint8_t* data);

  uint32_t state_[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
  uint8_t buffer_[64] = {};
  size_t buffered_ = 0;
  uint64_t total_ = 0;
};

}  // namespace lorry
