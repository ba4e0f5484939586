// Memory for tables that are read at random: in pages of 2 MB where the system has them. With small
// pages each look-up also misses the processor's list of pages, and prefetches that do are dropped.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

namespace lorry::tokenizer {

/// Zeros at first, which cost nothing until they are written. Move-only.
template <typename T>
class BigArray {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  BigArray() = default;
  explicit BigArray(size_t size)
      : size_(size), bytes_((size * sizeof(T) + kPage - 1) / kPage * kPage) {
    if (size == 0) return;
    // Older kernels do not place a mapping at a large page's beginning: one page more is asked for,
    // and what lies outside is given back.
    void* const raw =
        ::mmap(nullptr, bytes_ + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) throw std::bad_alloc();
    char* const begin = static_cast<char*>(raw);
    const size_t front = (kPage - reinterpret_cast<size_t>(begin) % kPage) % kPage;
    if (front > 0) ::munmap(begin, front);
    ::munmap(begin + front + bytes_, kPage - front);
    ::madvise(begin + front, bytes_, MADV_HUGEPAGE);
    data_ = reinterpret_cast<T*>(begin + front);
  }
  BigArray(BigArray&& other) noexcept { swap(other); }
  BigArray& operator=(BigArray&& other) noexcept {
    swap(other);
    return *this;
  }
  ~BigArray() {
    if (data_) ::munmap(data_, bytes_);
  }

  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }

 private:
  static constexpr size_t kPage = size_t{2} << 20;

  void swap(BigArray& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(bytes_, other.bytes_);
  }

  T* data_ = nullptr;
  size_t size_ = 0;
  size_t bytes_ = 0;
};

}  // namespace lorry::tokenizer
