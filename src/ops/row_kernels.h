// Products with a matrix that is read as it is held, by AVX2 instructions. Plain memory and no
// library headers: row_kernels_avx2.cc is compiled for processors that the program may not run on,
// and a function that it shared with other files would be too.
#pragma once

#include <cstdint>

namespace lorry::ops::cpu {

enum class RowCode {
  kBf16,
  kF16,
  kFp8,  ///< e4m3, none of them NaN
};

/// Rows of activations are padded with zeros to a multiple of this.
constexpr int64_t kRowStep = 16;

/// y = bias + x W^T, in float32 sums. A number of y depends on its row of x and its row of W alone:
/// it is the same bit for bit whatever other rows are computed with it.
struct RowProduct {
  RowCode code = RowCode::kBf16;
  const void* weight = nullptr;   ///< (out, in)
  const float* scales = nullptr;  ///< (out), of kFp8 alone
  const float* bias = nullptr;    ///< (out), or null
  int64_t in = 0;
  const float* x = nullptr;  ///< (tokens, padded) of `arrange_row`
  int64_t padded = 0, tokens = 0;
  float* y = nullptr;  ///< (tokens, out), rows `y_stride` numbers apart
  int64_t y_stride = 0;
};

/// Computes the columns [begin, end) of y.
void multiply_rows(const RowProduct& product, int64_t begin, int64_t end);

/// One row of x, (in), in the order in which codes are widened; (padded) numbers.
void arrange_row(RowCode code, const float* x, int64_t in, float* out);

}  // namespace lorry::ops::cpu
