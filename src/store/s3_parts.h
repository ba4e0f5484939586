// The parts of a multipart upload: their sizes, and the bytes of one that is being filled.
#pragma once

#include <arrow/buffer.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "net/io_pool.h"

namespace lorry::store {

/// S3's limits: 10,000 parts, at least 5 MB each but the last. Parts are of one size as long as may
/// be (some servers insist on it); beyond 5,000 of them they grow, so that objects of 440 GB fit.
int64_t part_size(int number);
inline constexpr int kMostParts = 10'000;

/// Bytes of one part: small writes are copied together, large Arrow buffers kept as they are.
class PartBytes {
 public:
  explicit PartBytes(int64_t capacity) : capacity_(capacity) {}

  int64_t size() const { return size_; }
  int64_t room() const { return capacity_ - size_; }
  uint32_t crc() const { return crc_; }
  /// Views of all bytes in order; valid while this lives.
  std::vector<std::string_view> spans() const;

  /// At most `room()` bytes.
  void copy(const void* data, int64_t size);
  void keep(std::shared_ptr<arrow::Buffer> buffer);

  net::MemoryShare share;  ///< of the transfer memory

 private:
  struct Piece {
    std::shared_ptr<arrow::Buffer> buffer;  ///< null: a range of copied_
    size_t begin = 0, size = 0;
  };
  void count(const void* data, int64_t size);

  const int64_t capacity_;
  int64_t size_ = 0;
  uint32_t crc_ = 0;
  std::string copied_;
  std::vector<Piece> pieces_;
};

}  // namespace lorry::store
