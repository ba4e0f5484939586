#include "ops/rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/residual_rms_norm.h"

namespace lorry::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

at::Tensor forward_of(const at::Tensor& x, const at::Tensor& weight, double eps, RmsNormKind kind) {
  return rms_norm_implementation(x)
      .forward(x.contiguous(), {}, weight.contiguous(), eps, kind)
      .normed;
}

struct RmsNorm : Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            double eps, int64_t kind) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["kind"] = kind;
    return forward_of(x, weight, eps, static_cast<RmsNormKind>(kind));
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const RmsNormGradients out = rms_norm_implementation(saved[0]).backward(
        saved[0].contiguous(), saved[1].contiguous(), {}, grads[0].contiguous(),
        ctx->saved_data["eps"].toDouble(),
        static_cast<RmsNormKind>(ctx->saved_data["kind"].toInt()), ctx->needs_input_grad(1));
    return {out.x, out.weight, {}, {}};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, RmsNormKind kind) {
  const bool needs_grad =
      at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
  return needs_grad ? RmsNorm::apply(x, weight, eps, static_cast<int64_t>(kind))
                    : forward_of(x, weight, eps, kind);
}

}  // namespace lorry::ops
