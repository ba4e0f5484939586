// How a kernel reads the next rows of a matrix into the cache while it computes with some. For
// row_kernels_avx2.cc and row_int_kernels_avx2.cc alone (see row_kernels.h).
#pragma once

#include <cstdint>

namespace lorry::ops::cpu {

/// The processor's own prefetching follows rows side by side if they are long, and loses short ones
/// before it has begun; those are read in the order of memory.
enum class Fetch { kNothing, kSideBySide, kInOrder };

/// Rows of up to so many bytes are short (measured on Zen 3).
constexpr int64_t kShortRow = 3072;

constexpr Fetch fetch_of_rows(int64_t bytes) {
  return bytes > kShortRow ? Fetch::kSideBySide : Fetch::kInOrder;
}

}  // namespace lorry::ops::cpu
