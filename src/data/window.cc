#include <algorithm>
#include <cstring>
#include <new>  // bad_alloc
#include <utility>

#include "data/text_format.h"

namespace lorry::data {

Bytes allocate_bytes(size_t size) {
  Bytes bytes(static_cast<char*>(std::malloc(size)));
  if (!bytes) throw std::bad_alloc();
  return bytes;
}

void Window::make_room(size_t size) {
  if (begin_ == 0 && size <= capacity_) return;
  const size_t held = end_ - begin_;
  if (size > capacity_) {
    void* bigger = std::realloc(buffer_.get(), size + kBlockPadding);
    if (!bigger) throw std::bad_alloc();
    (void)buffer_.release();
    buffer_.reset(static_cast<char*>(bigger));
    capacity_ = size;
  }
  if (begin_ > 0) std::memmove(buffer_.get(), buffer_.get() + begin_, held);
  begin_ = 0;
  end_ = held;
}

Result<> Window::fill(size_t size) {
  if (end_ - begin_ < size && !at_end_) make_room(size);
  while (end_ - begin_ < size && !at_end_) {
    LORRY_ASSIGN(const int64_t got, source_->read(buffer_.get() + end_, int64_t(capacity_ - end_)));
    at_end_ = got == 0;
    end_ += size_t(got);
  }
  return {};
}

Bytes Window::take(size_t size) {
  const size_t rest = end_ - begin_ - size;
  if (size < rest) {
    auto out = allocate_bytes(size + kBlockPadding);
    std::memcpy(out.get(), buffer_.get() + begin_, size);
    drop(size);
    return out;
  }
  // What is left is less: it moves, and the block takes the buffer with it.
  if (begin_ > 0) std::memmove(buffer_.get(), buffer_.get() + begin_, size + rest);
  auto out = std::exchange(buffer_, nullptr);
  offset_ += int64_t(size);
  begin_ = 0;
  end_ = capacity_ = rest;
  if (rest > 0) {
    buffer_ = allocate_bytes(rest + kBlockPadding);
    std::memcpy(buffer_.get(), out.get() + size, rest);
  }
  return out;
}

void Window::drop(size_t size) {
  begin_ += size;
  offset_ += int64_t(size);
}

int64_t count_lines(std::string_view text) {
  constexpr size_t kLanes = 32;
  const char* data = text.data();
  size_t at = 0;
  int64_t lines = 0;
  while (text.size() - at >= kLanes) {
    // Bytes of at most 255 rounds each: adds that the compiler does 16 or 32 at a time.
    uint8_t counts[kLanes] = {};
    const size_t rounds = std::min<size_t>(255, (text.size() - at) / kLanes);
    for (size_t round = 0; round < rounds; ++round, at += kLanes) {
#pragma GCC ivdep
      for (size_t lane = 0; lane < kLanes; ++lane) counts[lane] += data[at + lane] == '\n';
    }
    for (const uint8_t count : counts) lines += count;
  }
  for (; at < text.size(); ++at) lines += data[at] == '\n';
  return lines;
}

}  // namespace lorry::data
