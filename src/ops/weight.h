// A frozen or trained matrix in the format it is held in, and the product with it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace lorry::ops {

enum class WeightFormat {
  kDense,   ///< data (out, in), any float dtype
  kPacked,  ///< data: oneDNN's own layout of a bfloat16 or float32 matrix; CPU only, no gradient
  /// NF4 with double quantisation, as bitsandbytes (nf4.h): data (out * in / 2) uint8, two codes a
  /// byte, high half first; scales (out * in / 64) uint8, codes of the largest magnitude of each 64
  /// numbers less the mean of these; second_scales float32: that mean, then the scale of each 256
  kNf4,
  kInt4Groups,  ///< data (out, in / 2) uint8, low half first; scales and second_scales (out, in /
                ///< 128) float32: number = (code - 8) * scale + second_scale
  kInt8Rows,    ///< data (out, in) int8; scales (out, 1) float32
  kFp8Rows,     ///< data (out, in) float8_e4m3fn; scales (out, 1) float32
  kMxfp4,  ///< data (out, in / 2) uint8 e2m1 codes, low half first; scales (out, in / 32) uint8,
           ///< 2^(scale - 127). OCP Microscaling Formats 1.0, as GPT-OSS is stored
};

inline constexpr int64_t kInt4Group = 128, kMxfp4Block = 32;  ///< numbers that share a scale

/// One linear map's numbers. A value: copies share the tensors.
struct Weight {
  WeightFormat format = WeightFormat::kDense;
  int64_t out = 0, in = 0;
  at::Tensor data, scales, second_scales;
  at::Tensor bias;  ///< (out) or undefined
  /// No training reads it: kFp8Rows may then be multiplied as it is held, with other roundings.
  bool is_for_serving = false;

  bool defined() const { return data.defined(); }
  Weight to(at::Device device) const;
  static Weight dense(at::Tensor data, at::Tensor bias = {});
};

/// "dense", "packed", "nf4", "int4", "int8", "fp8", "mxfp4".
std::string_view format_name(WeightFormat format);

/// x W^T + bias. x: (..., in), float32, bfloat16 or float16 (for kPacked what was packed). Returns
/// (..., out) in x's dtype. Differentiable in x, and in data and bias where the format is dense;
/// kPacked serves inference only. A quantised weight is widened to x's dtype for the product. On a
/// CPU and where no gradient is asked for, float32 x is multiplied with int8, int4, bfloat16,
/// float16 and fp8 for serving as they are held (row_products.h).
at::Tensor linear(const at::Tensor& x, const Weight& weight);

/// Whether a weight can be held as kPacked: dense bfloat16 or float32 on a CPU whose oneDNN has
/// products of it.
bool can_pack(const Weight& weight);
/// Whether products with few rows are faster then. Of float32 only large matrices are: oneDNN takes
/// longer to begin than libtorch's own products.
bool pays_to_pack(const Weight& weight);

/// Another format of a dense weight, on its device; the bias goes along. Unsupported where `in` is
/// no multiple of the format's group (NF4: out * in of 64), or the format is not to be had on the
/// device. Beside both weights there are a few MB. All but kMxfp4 refuse NaN and infinity.
Result<Weight> quantize(const Weight& dense, WeightFormat format);

/// Whether an (out, in) matrix can be held in a format, whatever the device.
Result<> check_shape(WeightFormat format, int64_t out, int64_t in);

/// Bytes of an (out, in) matrix in a format, without bias; dense and packed in 16 bits.
int64_t format_bytes(WeightFormat format, int64_t out, int64_t in);

/// Rows of a kInt8Rows or kFp8Rows weight: indices (n) int64. Returns (n, in).
at::Tensor dequantize_rows(const Weight& weight, const at::Tensor& indices, at::ScalarType dtype);

/// The (out, in) matrix of a weight in `dtype`. kPacked cannot be unpacked: null tensor.
at::Tensor dequantize(const Weight& weight, at::ScalarType dtype);

}  // namespace lorry::ops
