// What the files that launch kernels (*_cuda.cc) share: names by dtype, alignment, sizes of grids.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "ops/cuda_driver.h"

namespace lorry::ops {

/// Element types of the kernels, in the order of `dtype_index`.
inline constexpr const char* kKernelDtypes[] = {"float32", "bfloat16", "float16"};

inline size_t dtype_index(at::ScalarType dtype) {
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf,
              "kernels take float32, bfloat16 and float16, not ", dtype);
  return dtype == at::kFloat ? 0 : dtype == at::kBFloat16 ? 1 : 2;
}

/// Bytes that a thread loads and stores at once where sizes and pointers allow it.
inline constexpr int64_t kVectorBytes = 16;

inline bool is_aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % kVectorBytes == 0;
}

/// Elements of `dtype` that a thread works on at once: a vector of them if all sizes (widths and
/// strides, in elements) and pointers allow it, else 1.
inline int64_t pack_size(const at::Tensor& x, std::initializer_list<int64_t> sizes,
                         std::initializer_list<const void*> pointers) {
  const auto n = kVectorBytes / static_cast<int64_t>(x.element_size());
  const bool fits = std::all_of(sizes.begin(), sizes.end(), [&](int64_t s) { return s % n == 0; });
  return fits && std::all_of(pointers.begin(), pointers.end(), is_aligned) ? n : 1;
}

/// "{operation}_{dtype}_{scalar, vector}" for each; `layout_kernel` is the index among those of one
/// operation.
inline std::vector<std::string> layout_kernel_names(std::initializer_list<std::string> operations) {
  std::vector<std::string> names;
  for (const std::string& operation : operations) {
    for (const std::string dtype : kKernelDtypes) {
      for (const std::string layout : {"scalar", "vector"}) {
        names.push_back(operation + "_" + dtype + "_" + layout);
      }
    }
  }
  return names;
}
inline constexpr size_t kLayoutKernels = 6;
inline size_t layout_kernel(at::ScalarType dtype, int64_t pack) {
  return 2 * dtype_index(dtype) + (pack > 1 ? 1 : 0);
}

/// Threads a block of kernels with a thread for each pack.
inline constexpr int64_t kFlatThreads = 256;

/// Such a kernel's grid. Kernels count packs in 32 bits.
inline CudaKernels::Shape flat_shape(int64_t packs) {
  TORCH_CHECK(packs < (int64_t{1} << 31), "a tensor of ", packs,
              " packs is too large for a kernel");
  return {static_cast<unsigned>((packs + kFlatThreads - 1) / kFlatThreads),
          static_cast<unsigned>(kFlatThreads)};
}

}  // namespace lorry::ops
