#include "model/fused_ops.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "model/cpu_kernels.h"

namespace lorry::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

bool needs_grad(const at::Tensor& a, const at::Tensor& b) {
  return at::GradMode::is_enabled() && (a.requires_grad() || b.requires_grad());
}

at::Tensor rms_norm_plain(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(wide.pow(2).mean(-1, /*keepdim=*/true) + eps);
  return weight * (wide * scale).to(x.scalar_type());
}

at::Tensor rotate_plain(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor a = x.narrow(-1, 0, half), b = x.narrow(-1, half, half);
  return at::cat({a * cos - b * sin, b * cos + a * sin}, -1);
}

struct RmsNorm : Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            double eps) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["eps"] = eps;
    return cpu::rms_norm(x, weight, eps);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const double eps = ctx->saved_data["eps"].toDouble();
    at::Tensor d_x, d_weight;
    if (ctx->needs_input_grad(0)) d_x = cpu::rms_norm_backward(grads[0], x, weight, eps);
    if (ctx->needs_input_grad(1)) {
      const at::Tensor normed = cpu::rms_norm(x, at::ones_like(weight), eps);
      d_weight = (grads[0].to(at::kFloat) * normed.to(at::kFloat))
                     .reshape({-1, weight.size(0)})
                     .sum(0)
                     .to(weight.scalar_type());
    }
    return {d_x, d_weight, at::Tensor()};
  }
};

struct Rotate : Function<Rotate> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin) {
    ctx->save_for_backward({cos, sin});
    return cpu::rotate(x, cos, sin, 1.0f);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    return {cpu::rotate(grads[0], saved[0], saved[1], -1.0f), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (!cpu::takes(x)) return rms_norm_plain(x, weight, eps);
  return needs_grad(x, weight) ? RmsNorm::apply(x, weight, eps) : cpu::rms_norm(x, weight, eps);
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  if (!cpu::takes(x)) return rotate_plain(x, cos, sin);
  return needs_grad(x, x) ? Rotate::apply(x, cos, sin) : cpu::rotate(x, cos, sin, 1.0f);
}

}  // namespace lorry::model
