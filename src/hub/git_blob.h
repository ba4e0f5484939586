// The id that git gives to a file's bytes; the Hub tells it of every file that is not in LFS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lorry::hub {

/// SHA-1 (FIPS 180-4) over "blob SIZE\0" and the bytes. It tells damage, not malice. Not
/// thread-safe.
class GitBlob {
 public:
  explicit GitBlob(int64_t size);
  void update(std::string_view bytes);
  /// 40 lower-case hex digits. Ends the object's use.
  std::string hex();

 private:
  void block(const uint8_t* data);

  uint32_t state_[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
  uint8_t buffer_[64] = {};
  size_t buffered_ = 0;
  uint64_t total_ = 0;
};

}  // namespace lorry::hub
