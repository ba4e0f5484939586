// x W^T for each weight format; weight.h has the contract.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "ops/cpu_packed.h"
#include "ops/row_products.h"
#include "ops/weight.h"

namespace lorry::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// Keeps the small quantised form for the backward pass, not the wide one that the product used.
struct QuantizedLinear : Function<QuantizedLinear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const Weight& weight) {
    ctx->save_for_backward({weight.data, weight.scales, weight.second_scales});
    ctx->saved_data["format"] = static_cast<int64_t>(weight.format);
    ctx->saved_data["out"] = weight.out;
    ctx->saved_data["in"] = weight.in;
    return at::linear(x, dequantize(weight, x.scalar_type()),
                      weight.bias.defined() ? std::optional(weight.bias) : std::nullopt);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Weight weight{static_cast<WeightFormat>(ctx->saved_data["format"].toInt()),
                        ctx->saved_data["out"].toInt(),
                        ctx->saved_data["in"].toInt(),
                        saved[0],
                        saved[1],
                        saved[2],
                        {}};
    return {at::matmul(grads[0], dequantize(weight, grads[0].scalar_type())), at::Tensor()};
  }
};

}  // namespace

at::Tensor linear(const at::Tensor& x, const Weight& weight) {
  const Weight* const weights[] = {&weight};
  if (!at::GradMode::is_enabled() && cpu::takes_rows(x, weights)) {
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = weight.out;
    return cpu::row_products(x.reshape({-1, weight.in}), weights).view(shape);
  }
  if (weight.format == WeightFormat::kPacked) return cpu::linear_packed(x, weight);
  if (weight.format != WeightFormat::kDense) return QuantizedLinear::apply(x, weight);
  return at::linear(x, weight.data,
                    weight.bias.defined() ? std::optional(weight.bias) : std::nullopt);
}

}  // namespace lorry::ops
