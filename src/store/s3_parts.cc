#include "store/s3_parts.h"

#include <algorithm>

#include "base/crc32c.h"

namespace lorry::store {

int64_t part_size(int number) {
  constexpr int64_t kPart = 8 << 20;
  if (number <= 5000) return kPart;
  return number <= 7500 ? 4 * kPart : 16 * kPart;
}

std::vector<std::string_view> PartBytes::spans() const {
  std::vector<std::string_view> spans;
  for (const Piece& piece : pieces_) {
    if (piece.buffer) {
      spans.emplace_back(reinterpret_cast<const char*>(piece.buffer->data()), piece.size);
    } else {
      spans.emplace_back(copied_.data() + piece.begin, piece.size);
    }
  }
  return spans;
}

void PartBytes::copy(const void* data, int64_t size) {
  if (size == 0) return;
  const size_t begin = copied_.size();
  // One growth for parts that fill up; little memory for objects of a few bytes.
  if (begin + size_t(size) > copied_.capacity()) {
    const bool large = begin + size_t(size) > 64 << 10;
    copied_.reserve(large ? size_t(capacity_) : 2 * (begin + size_t(size)));
  }
  copied_.append(static_cast<const char*>(data), size_t(size));
  if (!pieces_.empty() && !pieces_.back().buffer) {
    pieces_.back().size += size_t(size);
  } else {
    pieces_.push_back({nullptr, begin, size_t(size)});
  }
  count(data, size);
}

void PartBytes::keep(std::shared_ptr<arrow::Buffer> buffer) {
  count(buffer->data(), buffer->size());
  const size_t size = size_t(buffer->size());
  pieces_.push_back({std::move(buffer), 0, size});
}

void PartBytes::count(const void* data, int64_t size) {
  crc_ = crc32c(crc_, data, size_t(size));
  size_ += size;
}

}  // namespace lorry::store
