#include "ops/row_products.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <optional>
#include <variant>
#include <vector>

#include "ops/cpu_loops.h"
#include "ops/row_int_kernels.h"
#include "ops/row_kernels.h"

namespace lorry::ops::cpu {
namespace {

/// Rows of a matrix that a kernel computes together.
constexpr int64_t kGroup = 4;

bool has_instructions() {
#if defined(__x86_64__)
  static const bool kHas = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                           __builtin_cpu_supports("f16c");
  return kHas;
#else
  return false;
#endif
}

std::optional<RowCode> code_of(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return RowCode::kBf16;
  if (dtype == at::kHalf) return RowCode::kF16;
  return std::nullopt;
}

/// How a weight is read.
using Code = std::variant<RowCode, IntCode>;

std::optional<Code> code_of(const Weight& weight) {
  if (weight.format == WeightFormat::kInt8Rows) return IntCode::kInt8;
  if (weight.format == WeightFormat::kInt4Groups) return IntCode::kInt4;
  if (weight.format == WeightFormat::kFp8Rows && weight.is_for_serving) return RowCode::kFp8;
  if (weight.format != WeightFormat::kDense) return std::nullopt;
  if (const auto code = code_of(weight.data.scalar_type())) return *code;
  return std::nullopt;
}

/// Activations in the order of a code.
struct Arranged {
  at::Tensor x;  ///< (T, padded)
  explicit Arranged(const at::Tensor& rows, RowCode code) {
    const int64_t tokens = rows.size(0), in = rows.size(1);
    const int64_t padded = (in + kRowStep - 1) / kRowStep * kRowStep;
    x = at::empty({tokens, padded}, rows.options());
    const float* from = data<float>(rows);
    float* to = mutable_data<float>(x);
    for_rows(tokens, in,
             [&](int64_t row) { arrange_row(code, from + row * in, in, to + row * padded); });
  }
};

/// The same as integers.
struct ArrangedInts {
  at::Tensor codes, scales, sums;
  IntRows rows;
  explicit ArrangedInts(const at::Tensor& x, IntCode code) {
    const int64_t tokens = x.size(0), in = x.size(1), groups = (in + kIntGroup - 1) / kIntGroup;
    codes = at::empty({tokens, groups * kIntGroup}, x.options().dtype(at::kShort));
    scales = at::empty({tokens, groups}, x.options());
    sums = at::empty({tokens, groups}, x.options());
    rows = {mutable_data<int16_t>(codes), mutable_data<float>(scales), mutable_data<float>(sums),
            tokens, groups};
    const float* from = data<float>(x);
    for_rows(tokens, in,
             [&](int64_t row) { arrange_int_row(code, from + row * in, in, rows, row); });
  }
};

/// Where a module's results go.
struct Output {
  at::Tensor bias;  ///< float32, or undefined
  float* y;
  int64_t stride;
  const float* bias_data() const { return bias.defined() ? data<float>(bias) : nullptr; }
};

RowProduct product_of(const Weight& weight, const Output& output, const Arranged& x, RowCode code) {
  return {.code = code,
          .weight = weight.data.const_data_ptr(),
          .scales = code == RowCode::kFp8 ? data<float>(weight.scales) : nullptr,
          .bias = output.bias_data(),
          .in = weight.in,
          .x = data<float>(x.x),
          .padded = x.x.size(1),
          .tokens = x.x.size(0),
          .y = output.y,
          .y_stride = output.stride};
}

IntProduct product_of(const Weight& weight, const Output& output, const ArrangedInts& x,
                      IntCode code) {
  return {.code = code,
          .weight = weight.data.const_data_ptr(),
          .scales = data<float>(weight.scales),
          .zeros = code == IntCode::kInt4 ? data<float>(weight.second_scales) : nullptr,
          .bias = output.bias_data(),
          .in = weight.in,
          .x = x.rows,
          .y = output.y,
          .y_stride = output.stride};
}

int64_t groups_of(const Weight& weight) { return (weight.out + kGroup - 1) / kGroup; }

/// fn(module, first row, end) for the rows of all modules, over the threads. `work`: numbers that a
/// row takes products of.
template <typename Fn>
void for_row_ranges(Weights weights, int64_t work, Fn&& fn) {
  int64_t groups = 0;
  for (const Weight* weight : weights) groups += groups_of(*weight);
  const int64_t grain = std::max<int64_t>(1, kTaskGrain / (kGroup * std::max<int64_t>(1, work)));
  at::parallel_for(0, groups, grain, [&](int64_t begin, int64_t end) {
    int64_t first = 0;  // group of the module
    for (size_t i = 0; i < weights.size(); ++i) {
      const int64_t count = groups_of(*weights[i]);
      const int64_t low = std::max(begin, first) - first;
      const int64_t high = std::min(end, first + count) - first;
      if (low < high) fn(i, kGroup * low, std::min(kGroup * high, weights[i]->out));
      first += count;
    }
  });
}

void multiply(const RowProduct& product, int64_t begin, int64_t end) {
  multiply_rows(product, begin, end);
}
void multiply(const IntProduct& product, int64_t begin, int64_t end) {
  multiply_int_rows(product, begin, end);
}

template <typename Rows, typename CodeType>
void multiply_all(const at::Tensor& x, Weights weights, const std::vector<Output>& outputs,
                  CodeType code) {
  const Rows rows(x, code);
  std::vector<decltype(product_of(*weights[0], outputs[0], rows, code))> products;
  for (size_t i = 0; i < weights.size(); ++i) {
    products.push_back(product_of(*weights[i], outputs[i], rows, code));
  }
  for_row_ranges(weights, x.numel(), [&](size_t module, int64_t begin, int64_t end) {
    multiply(products[module], begin, end);
  });
}

}  // namespace

bool reads_rows_of(at::ScalarType dtype) {
  return has_instructions() && code_of(dtype).has_value();
}

bool takes_rows(const at::Tensor& x, Weights weights) {
  if (!has_instructions() || !x.is_cpu() || x.scalar_type() != at::kFloat) return false;
  const auto code = code_of(*weights[0]);
  return code && std::all_of(weights.begin(), weights.end(), [&](const Weight* weight) {
           return code_of(*weight) == code && weight->in == x.size(-1) && weight->data.is_cpu() &&
                  weight->data.is_contiguous();
         });
}

at::Tensor row_products(const at::Tensor& x, Weights weights) {
  int64_t out = 0;
  for (const Weight* weight : weights) out += weight->out;
  at::Tensor y = at::empty({x.size(0), out}, x.options());
  std::vector<Output> outputs;
  float* column = mutable_data<float>(y);
  for (const Weight* weight : weights) {
    const at::Tensor& bias = weight->bias;
    outputs.push_back({bias.defined() ? bias.to(at::kFloat).contiguous() : bias, column, out});
    column += weight->out;
  }
  const at::Tensor rows = x.contiguous();
  const Code code = *code_of(*weights[0]);
  if (const auto* wide = std::get_if<RowCode>(&code)) {
    multiply_all<Arranged>(rows, weights, outputs, *wide);
  } else {
    multiply_all<ArrangedInts>(rows, weights, outputs, std::get<IntCode>(code));
  }
  return y;
}

}  // namespace lorry::ops::cpu
