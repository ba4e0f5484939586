// What dequantize_cuda.cc hands to the kernels of dequantize_cuda.cu, by value. Included by both
// compilers.
#pragma once

#include <cstdint>

namespace lorry::ops {

/// Numbers that a thread widens.
constexpr int kDequantizePack = 8;

/// A weight of kNf4 (weight.h).
struct WidenNf4Arguments {
  const uint8_t* codes;
  const uint8_t* scales;       ///< a code for each 64 numbers
  const float* second_scales;  ///< the scales' mean, then one for each 256 scales
  const float* scale_numbers;  ///< of the 256 codes of a scale
  void* out;
  int64_t numbers;
  float table[16];  ///< of the codes
};

/// A weight of kFp8Rows: `numbers` e4m3 codes, in rows of `width`.
struct WidenFp8Arguments {
  const uint8_t* codes;
  const float* scales;
  void* out;
  int64_t numbers;
  int32_t width;
};

}  // namespace lorry::ops
