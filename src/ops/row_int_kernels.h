// Products with a matrix of 8-bit or 4-bit integers, by AVX2 instructions. As row_kernels.h, but
// the activations are made integers of 16 bits first, so that products and sums of a group of
// kIntGroup numbers are exact. What that rounds is at most 2^-16 of the largest magnitude of a
// group of activations: a hundredth of what bfloat16 would.
#pragma once

#include <cstdint>

namespace lorry::ops::cpu {

enum class IntCode {
  kInt8,  ///< weight (out, in) int8; number = code * scales[row]
  /// weight (out, in / 2), low half first; number = (code - 8) * scales + zeros of row and group
  kInt4,
};

/// Numbers of a row that share a scale: activations in both codes, the matrix in kInt4.
constexpr int64_t kIntGroup = 128;

/// Activations as integers, of rows padded with zeros to whole groups.
struct IntRows {
  int16_t* codes = nullptr;  ///< (tokens, groups * kIntGroup), in the order of the code's widening
  float* scales = nullptr;   ///< (tokens, groups): number = code * scale
  float* sums = nullptr;     ///< (tokens, groups): of the numbers, as rounded
  int64_t tokens = 0, groups = 0;
};

/// y = bias + x W^T. A number of y depends on its row of x and its row of W alone.
struct IntProduct {
  IntCode code = IntCode::kInt8;
  const void* weight = nullptr;
  const float* scales = nullptr;  ///< (out) or (out, groups)
  const float* zeros = nullptr;   ///< (out, groups), of kInt4 alone
  const float* bias = nullptr;    ///< (out), or null
  int64_t in = 0;
  IntRows x;
  float* y = nullptr;  ///< (tokens, out), rows `y_stride` numbers apart
  int64_t y_stride = 0;
};

/// Computes the columns [begin, end) of y.
void multiply_int_rows(const IntProduct& product, int64_t begin, int64_t end);

/// Makes one token's row of `rows` of x: (in).
void arrange_int_row(IntCode code, const float* x, int64_t in, const IntRows& rows, int64_t token);

}  // namespace lorry::ops::cpu
