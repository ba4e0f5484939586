#include "ops/rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/cpu_kernels.h"

namespace lorry::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

at::Tensor rms_norm_plain(const at::Tensor& x, const at::Tensor& weight, double eps,
                          RmsNormKind kind) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(wide.pow(2).mean(-1, /*keepdim=*/true) + eps);
  const at::Tensor normed = wide * scale;
  if (kind == RmsNormKind::kPlain) return weight * normed.to(x.scalar_type());
  at::Tensor factor = weight.to(at::kFloat);
  if (kind == RmsNormKind::kOnePlusWeight) factor = factor + 1;
  return (normed * factor).to(x.scalar_type());
}

struct RmsNorm : Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            double eps, int64_t kind) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["kind"] = kind;
    return cpu::rms_norm(x, weight, eps, static_cast<RmsNormKind>(kind));
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const double eps = ctx->saved_data["eps"].toDouble();
    const auto kind = static_cast<RmsNormKind>(ctx->saved_data["kind"].toInt());
    at::Tensor d_x, d_weight;
    if (ctx->needs_input_grad(0)) d_x = cpu::rms_norm_backward(grads[0], x, weight, eps, kind);
    if (ctx->needs_input_grad(1)) {
      const at::Tensor normed = cpu::rms_norm(x, at::ones_like(weight), eps, RmsNormKind::kPlain);
      d_weight = (grads[0].to(at::kFloat) * normed.to(at::kFloat))
                     .reshape({-1, weight.size(0)})
                     .sum(0)
                     .to(weight.scalar_type());
    }
    return {d_x, d_weight, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, RmsNormKind kind) {
  if (!cpu::takes(x)) return rms_norm_plain(x, weight, eps, kind);
  const bool needs_grad =
      at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
  return needs_grad ? RmsNorm::apply(x, weight, eps, static_cast<int64_t>(kind))
                    : cpu::rms_norm(x, weight, eps, kind);
}

}  // namespace lorry::ops
