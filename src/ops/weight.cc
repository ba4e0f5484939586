#include "ops/weight.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "ops/cpu_packed.h"

namespace lorry::ops {
namespace {

constexpr int64_t kNf4Block = 64, kInt4Group = 128, kMxBlock = 32;

// Dettmers et al. 2023, arXiv:2305.14314, appendix E.
constexpr float kNf4Codes[16] = {-1.0f,
                                 -0.6961928009986877f,
                                 -0.5250730514526367f,
                                 -0.39491748809814453f,
                                 -0.28444138169288635f,
                                 -0.18477343022823334f,
                                 -0.09105003625154495f,
                                 0.0f,
                                 0.07958029955625534f,
                                 0.16093020141124725f,
                                 0.24611230194568634f,
                                 0.33791524171829224f,
                                 0.44070982933044434f,
                                 0.5626170039176941f,
                                 0.7229568362236023f,
                                 1.0f};
// e2m1: sign, two exponent bits, one of mantissa.
constexpr float kE2m1Codes[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                  -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

at::Tensor code_table(const float (&codes)[16], const at::Device& device) {
  return at::tensor(at::ArrayRef<float>(codes, 16), at::kFloat).to(device);
}

/// (n, 2m) codes of (n, m) bytes; `low_first` says which half of a byte comes first.
at::Tensor unpack(const at::Tensor& bytes, bool low_first) {
  const at::Tensor low = bytes.bitwise_and(15), high = bytes.bitwise_right_shift(4);
  return at::stack(low_first ? at::TensorList{low, high} : at::TensorList{high, low}, -1)
      .flatten(-2)
      .to(at::kInt);
}

/// The reverse of `unpack`; codes (n, 2m) of 0 to 15.
at::Tensor pack(const at::Tensor& codes, bool low_first) {
  const at::Tensor pairs = codes.to(at::kByte).unflatten(-1, {codes.size(-1) / 2, 2});
  const at::Tensor first = pairs.select(-1, 0), second = pairs.select(-1, 1);
  return low_first ? first.bitwise_or(second.bitwise_left_shift(4))
                   : second.bitwise_or(first.bitwise_left_shift(4));
}

/// Index of the nearest of the 16 codes, the lower one at a tie. values: any shape, float32.
at::Tensor nearest_code(const at::Tensor& values, const float (&codes)[16]) {
  return (values.unsqueeze(-1) - code_table(codes, values.device())).abs().argmin(-1);
}

Weight to_nf4(const Weight& w) {
  const at::Tensor blocks = w.data.to(at::kFloat).reshape({-1, kNf4Block});
  const at::Tensor scales = blocks.abs().amax(1, /*keepdim=*/true);
  const at::Tensor codes = nearest_code(blocks / scales.clamp_min(1e-30), kNf4Codes);
  return {WeightFormat::kNf4, w.out, w.in,  pack(codes, false).flatten(),
          scales.flatten(),   {},    w.bias};
}

Weight to_int4(const Weight& w) {
  const at::Tensor groups = w.data.to(at::kFloat).reshape({w.out, w.in / kInt4Group, kInt4Group});
  const at::Tensor low = groups.amin(-1, true), high = groups.amax(-1, true);
  const at::Tensor scale = ((high - low) / 15).clamp_min(1e-30);
  const at::Tensor codes = ((groups - low) / scale).round().clamp(0, 15);
  const at::Tensor zero = low + scale * 8;  // the number of code 8
  return {WeightFormat::kInt4Groups,
          w.out,
          w.in,
          pack(codes.reshape({w.out, w.in}), true),
          scale.squeeze(-1).contiguous(),
          zero.squeeze(-1).contiguous(),
          w.bias};
}

Weight to_fp8(const Weight& w) {
  constexpr double kLargest = 448;
  const at::Tensor wide = w.data.to(at::kFloat);
  const at::Tensor scales = (wide.abs().amax(1, true) / kLargest).clamp_min(1e-30);
  return {WeightFormat::kFp8Rows,
          w.out,
          w.in,
          (wide / scales).to(at::kFloat8_e4m3fn),
          scales,
          {},
          w.bias};
}

Weight to_mxfp4(const Weight& w) {
  const at::Tensor blocks = w.data.to(at::kFloat).reshape({w.out, w.in / kMxBlock, kMxBlock});
  // The largest number's exponent less that of 6, the largest code.
  const at::Tensor top = blocks.abs().amax(-1, true).clamp_min(1e-30);
  const at::Tensor exponent = (top.log2().floor() - 2).clamp(-127, 127);
  const at::Tensor codes = nearest_code(blocks / exponent.exp2(), kE2m1Codes);
  return {WeightFormat::kMxfp4,
          w.out,
          w.in,
          pack(codes.reshape({w.out, w.in}), true),
          (exponent.squeeze(-1) + 127).to(at::kByte),
          {},
          w.bias};
}

at::Tensor widen_mxfp4(const Weight& w) {
  const at::Tensor values =
      code_table(kE2m1Codes, w.data.device()).index_select(0, unpack(w.data, true).flatten());
  const at::Tensor scales = at::exp2(w.scales.to(at::kFloat) - 127);
  return values.view({w.out, w.in / kMxBlock, kMxBlock}) * scales.unsqueeze(-1);
}

at::Tensor widen_nf4(const Weight& w) {
  const at::Tensor values =
      code_table(kNf4Codes, w.data.device()).index_select(0, unpack(w.data, false));
  return values.view({-1, kNf4Block}) * w.scales.unsqueeze(1);
}

at::Tensor widen_int4(const Weight& w) {
  const at::Tensor codes =
      unpack(w.data, true).to(at::kFloat).view({w.out, w.in / kInt4Group, kInt4Group}) - 8;
  return codes * w.scales.unsqueeze(-1) + w.second_scales.unsqueeze(-1);
}

Result<> check_groups(const Weight& w, WeightFormat format, int64_t numbers, int64_t group) {
  if (numbers % group == 0) return {};
  return unsupported(fmt::format("a {} x {} matrix cannot be held as {}: {} is no multiple of {}",
                                 w.out, w.in, format_name(format), numbers, group));
}

}  // namespace

Weight Weight::dense(at::Tensor data, at::Tensor bias) {
  const int64_t out = data.size(0), in = data.size(1);
  return {WeightFormat::kDense, out, in, std::move(data), {}, {}, std::move(bias)};
}

std::string_view format_name(WeightFormat format) {
  switch (format) {
    case WeightFormat::kDense:
      return "dense";
    case WeightFormat::kPacked:
      return "packed";
    case WeightFormat::kNf4:
      return "nf4";
    case WeightFormat::kInt4Groups:
      return "int4";
    case WeightFormat::kFp8Rows:
      return "fp8";
    case WeightFormat::kMxfp4:
      return "mxfp4";
  }
  return "";
}

bool pays_to_pack(const Weight& weight) {
  constexpr int64_t kLarge = 1 << 21;  // numbers; measured with 256 x 256 to 896 x 4864
  if (!can_pack(weight)) return false;
  return weight.data.scalar_type() != at::kFloat || weight.data.numel() >= kLarge;
}

bool can_pack(const Weight& weight) {
  return weight.format == WeightFormat::kDense && cpu::can_pack(weight.data);
}

Result<Weight> quantize(const Weight& dense, WeightFormat format) {
  const at::NoGradGuard no_grad;
  switch (format) {
    case WeightFormat::kDense:
      return dense;
    case WeightFormat::kPacked:
      if (!cpu::can_pack(dense.data)) {
        return unsupported("only bfloat16 and float32 matrices on a CPU with oneDNN can be packed");
      }
      return cpu::pack(dense);
    case WeightFormat::kNf4:
      LORRY_TRY(check_groups(dense, format, dense.out * dense.in, kNf4Block));
      return to_nf4(dense);
    case WeightFormat::kInt4Groups:
      LORRY_TRY(check_groups(dense, format, dense.in, kInt4Group));
      return to_int4(dense);
    case WeightFormat::kFp8Rows:
      return to_fp8(dense);
    case WeightFormat::kMxfp4:
      LORRY_TRY(check_groups(dense, format, dense.in, kMxBlock));
      return to_mxfp4(dense);
  }
  return unsupported("unknown weight format");
}

at::Tensor dequantize(const Weight& w, at::ScalarType dtype) {
  const auto finish = [&](const at::Tensor& x) { return x.reshape({w.out, w.in}).to(dtype); };
  switch (w.format) {
    case WeightFormat::kDense:
      return w.data.to(dtype);
    case WeightFormat::kPacked:
      return {};
    case WeightFormat::kNf4:
      return finish(widen_nf4(w));
    case WeightFormat::kInt4Groups:
      return finish(widen_int4(w));
    case WeightFormat::kFp8Rows:
      return finish(w.data.to(at::kFloat) * w.scales);
    case WeightFormat::kMxfp4:
      return finish(widen_mxfp4(w));
  }
  return {};
}

}  // namespace lorry::ops
