#include "ops/weight.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "ops/cpu_loops.h"
#include "ops/cpu_packed.h"
#include "ops/cuda_module.h"
#include "ops/nf4.h"
#include "ops/weight_cpu.h"

namespace lorry::ops {
namespace {

/// Numbers that are quantised at a time.
constexpr int64_t kChunk = 1 << 20;

// e2m1: sign, two exponent bits, one of mantissa.
constexpr float kE2m1Codes[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                  -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

at::Tensor code_table(const float (&codes)[16], const at::Device& device) {
  return at::tensor(at::ArrayRef<float>(codes, 16), at::kFloat).to(device);
}

/// (n, 2m) codes of (n, m) bytes, of which the low half comes first.
at::Tensor unpack(const at::Tensor& bytes) {
  const at::Tensor low = bytes.bitwise_and(15), high = bytes.bitwise_right_shift(4);
  return at::stack({low, high}, -1).flatten(-2).to(at::kInt);
}

/// The reverse of `unpack`; codes (n, 2m) of 0 to 15.
at::Tensor pack(const at::Tensor& codes) {
  const at::Tensor pairs = codes.to(at::kByte).unflatten(-1, {codes.size(-1) / 2, 2});
  return pairs.select(-1, 0).bitwise_or(pairs.select(-1, 1).bitwise_left_shift(4));
}

/// Index of the nearest of the 16 codes, the lower one at a tie. values: any shape, float32.
at::Tensor nearest_code(const at::Tensor& values, const float (&codes)[16]) {
  return (values.unsqueeze(-1) - code_table(codes, values.device())).abs().argmin(-1);
}

/// fn(first row, rows) for stretches of about kChunk numbers.
template <typename Fn>
void for_row_chunks(int64_t out, int64_t in, Fn&& fn) {
  const int64_t step = std::max<int64_t>(1, kChunk / in);
  for (int64_t row = 0; row < out; row += step) fn(row, std::min(step, out - row));
}

Result<> check_numbers(const at::Tensor& scales) {
  if (at::isfinite(scales).all().item<bool>()) return {};
  return invalid_input("it holds NaN or infinity");
}

/// Each row by its largest magnitude: fp8 and int8.
Result<Weight> to_scaled_rows(const Weight& w, WeightFormat format, at::ScalarType dtype,
                              double largest) {
  at::Tensor data = at::empty({w.out, w.in}, w.data.options().dtype(dtype));
  at::Tensor scales = at::empty({w.out, 1}, w.data.options().dtype(at::kFloat));
  for_row_chunks(w.out, w.in, [&](int64_t row, int64_t rows) {
    const at::Tensor wide = w.data.narrow(0, row, rows).to(at::kFloat);
    const at::Tensor scale = (wide.abs().amax(1, true) / largest).clamp_min(1e-30);
    const at::Tensor codes = wide / scale;
    data.narrow(0, row, rows).copy_(dtype == at::kChar ? codes.round() : codes);
    scales.narrow(0, row, rows).copy_(scale);
  });
  LORRY_TRY(check_numbers(scales));
  return Weight{format, w.out, w.in, data, scales, {}, w.bias};
}

Result<Weight> to_int4(const Weight& w) {
  const auto options = w.data.options();
  const int64_t groups = w.in / kInt4Group;
  at::Tensor data = at::empty({w.out, w.in / 2}, options.dtype(at::kByte));
  at::Tensor scales = at::empty({w.out, groups}, options.dtype(at::kFloat));
  at::Tensor zeros = at::empty_like(scales);
  for_row_chunks(w.out, w.in, [&](int64_t row, int64_t rows) {
    const at::Tensor wide =
        w.data.narrow(0, row, rows).to(at::kFloat).reshape({rows, groups, kInt4Group});
    const at::Tensor low = wide.amin(-1, true), high = wide.amax(-1, true);
    const at::Tensor scale = ((high - low) / 15).clamp_min(1e-30);
    const at::Tensor codes = ((wide - low) / scale).round().clamp(0, 15);
    data.narrow(0, row, rows).copy_(pack(codes.reshape({rows, w.in})));
    scales.narrow(0, row, rows).copy_(scale.squeeze(-1));
    zeros.narrow(0, row, rows).copy_((low + scale * 8).squeeze(-1));  // the number of code 8
  });
  LORRY_TRY(check_numbers(scales));
  return Weight{WeightFormat::kInt4Groups, w.out, w.in, data, scales, zeros, w.bias};
}

Weight to_mxfp4(const Weight& w) {
  const at::Tensor blocks = w.data.to(at::kFloat).reshape({w.out, w.in / kMxfp4Block, kMxfp4Block});
  // The largest number's exponent less that of 6, the largest code.
  const at::Tensor top = blocks.abs().amax(-1, true).clamp_min(1e-30);
  const at::Tensor exponent = (top.log2().floor() - 2).clamp(-127, 127);
  const at::Tensor codes = nearest_code(blocks / exponent.exp2(), kE2m1Codes);
  return {WeightFormat::kMxfp4,
          w.out,
          w.in,
          pack(codes.reshape({w.out, w.in})),
          (exponent.squeeze(-1) + 127).to(at::kByte),
          {},
          w.bias};
}

at::Tensor widen_mxfp4(const Weight& w) {
  const at::Tensor values =
      code_table(kE2m1Codes, w.data.device()).index_select(0, unpack(w.data).flatten());
  const at::Tensor scales = at::exp2(w.scales.to(at::kFloat) - 127);
  return values.view({w.out, w.in / kMxfp4Block, kMxfp4Block}) * scales.unsqueeze(-1);
}

void widen_fp8_plain(const Weight& w, at::Tensor& out) {
  for_row_chunks(w.out, w.in, [&](int64_t row, int64_t rows) {
    const at::Tensor wide = w.data.narrow(0, row, rows).to(at::kFloat);
    out.narrow(0, row, rows).copy_(wide.mul_(w.scales.narrow(0, row, rows)));
  });
}

void widen_fp8(const Weight& w, at::Tensor& out) {
  const CudaModule* const module = cuda_kernels(w.data.device());
  if (module != nullptr) return module->dequantize.fp8_rows(w, out);
  if (!w.data.is_cpu()) return widen_fp8_plain(w, out);
  cpu::with_products_dtype(out, [&](auto* numbers) {
    cpu::decode_fp8(cpu::data<uint8_t>(w.data), cpu::data<float>(w.scales), w.out, w.in, numbers);
  });
}

at::Tensor widen_int4(const Weight& w) {
  const at::Tensor codes =
      unpack(w.data).to(at::kFloat).view({w.out, w.in / kInt4Group, kInt4Group}) - 8;
  return codes * w.scales.unsqueeze(-1) + w.second_scales.unsqueeze(-1);
}

}  // namespace

Weight Weight::dense(at::Tensor data, at::Tensor bias) {
  const int64_t out = data.size(0), in = data.size(1);
  return {WeightFormat::kDense, out, in, std::move(data), {}, {}, std::move(bias)};
}

Weight Weight::to(at::Device device) const {
  Weight moved = *this;
  for (at::Tensor* part : {&moved.data, &moved.scales, &moved.second_scales, &moved.bias}) {
    if (part->defined()) *part = part->to(device);
  }
  return moved;
}

int64_t format_bytes(WeightFormat format, int64_t out, int64_t in) {
  const int64_t numbers = out * in;
  switch (format) {
    case WeightFormat::kDense:
    case WeightFormat::kPacked:
      return 2 * numbers;
    case WeightFormat::kNf4:
      return nf4_bytes(numbers);
    case WeightFormat::kInt4Groups:
      return numbers / 2 + numbers / kInt4Group * 8;
    case WeightFormat::kInt8Rows:
    case WeightFormat::kFp8Rows:
      return numbers + 4 * out;
    case WeightFormat::kMxfp4:
      return numbers / 2 + numbers / kMxfp4Block;
  }
  return 0;
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
    case WeightFormat::kInt8Rows:
      return "int8";
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

Result<> check_shape(WeightFormat format, int64_t out, int64_t in) {
  int64_t numbers = in, group = 1;
  if (format == WeightFormat::kNf4) {
    numbers = out * in;
    group = kNf4Block;
  }
  if (format == WeightFormat::kInt4Groups) group = kInt4Group;
  if (format == WeightFormat::kMxfp4) group = kMxfp4Block;
  if (numbers % group == 0) return {};
  return unsupported(fmt::format("a {} x {} matrix cannot be held as {}: {} is no multiple of {}",
                                 out, in, format_name(format), numbers, group));
}

Result<Weight> quantize(const Weight& dense, WeightFormat format) {
  const at::NoGradGuard no_grad;
  LORRY_TRY(check_shape(format, dense.out, dense.in));
  switch (format) {
    case WeightFormat::kDense:
      return dense;
    case WeightFormat::kPacked:
      if (!cpu::can_pack(dense.data)) {
        return unsupported("only bfloat16 and float32 matrices on a CPU with oneDNN can be packed");
      }
      return cpu::pack(dense);
    case WeightFormat::kNf4:
      return to_nf4(dense);
    case WeightFormat::kInt4Groups:
      return to_int4(dense);
    case WeightFormat::kInt8Rows:
      return to_scaled_rows(dense, format, at::kChar, 127);
    case WeightFormat::kFp8Rows:
      return to_scaled_rows(dense, format, at::kFloat8_e4m3fn, 448);
    case WeightFormat::kMxfp4:
      return to_mxfp4(dense);
  }
  return unsupported("unknown weight format");
}

at::Tensor dequantize_rows(const Weight& w, const at::Tensor& indices, at::ScalarType dtype) {
  Weight rows = w;
  rows.out = indices.size(0);
  // As bytes: libtorch selects no rows of fp8.
  rows.data = w.data.view(at::kByte).index_select(0, indices).view(w.data.scalar_type());
  rows.scales = w.scales.index_select(0, indices);
  return dequantize(rows, dtype);
}

at::Tensor dequantize(const Weight& w, at::ScalarType dtype) {
  const auto finish = [&](const at::Tensor& x) { return x.reshape({w.out, w.in}).to(dtype); };
  // In one pass to the three dtypes that products have; anything else by way of float32.
  const auto filled = [&](void (*widen)(const Weight&, at::Tensor&)) {
    const bool direct = dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf;
    const auto options = w.data.options().dtype(direct ? dtype : at::kFloat);
    at::Tensor out = at::empty({w.out, w.in}, options);
    widen(w, out);
    return out.to(dtype);
  };
  switch (w.format) {
    case WeightFormat::kDense:
      return w.data.to(dtype);
    case WeightFormat::kPacked:
      return {};
    case WeightFormat::kNf4:
      return filled(widen_nf4);
    case WeightFormat::kInt4Groups:
      return finish(widen_int4(w));
    case WeightFormat::kInt8Rows:
      return finish(w.data.to(at::kFloat) * w.scales);
    case WeightFormat::kFp8Rows:
      return filled(widen_fp8);
    case WeightFormat::kMxfp4:
      return finish(widen_mxfp4(w));
  }
  return {};
}

}  // namespace lorry::ops
