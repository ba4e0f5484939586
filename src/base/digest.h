// SHA-256, for the digests that info.json records (template, tokenizer, options, files).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace lorry {

/// Incremental SHA-256 (FIPS 180-4). Not thread-safe.
class Sha256 {
 public:
  /// Uses the processor's SHA instructions where it has them, unless `portable`.
  explicit Sha256(bool portable = false);
  void update(std::string_view bytes);
  /// The digest as 64 lower-case hex digits. Ends the object's use.
  std::string hex();

 private:
  void (*blocks_)(uint32_t* state, const uint8_t* data, size_t blocks);
  uint32_t state_[8];
  uint8_t buffer_[64];
  size_t buffered_ = 0;
  uint64_t total_ = 0;
};

std::string sha256_hex(std::string_view bytes);

}  // namespace lorry
