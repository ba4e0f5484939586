#include "ops/residual_rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/cuda_module.h"

namespace lorry::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// A row's quotient before and after it is multiplied, in the roundings of `kind`.
struct PlainNorm {
  at::Tensor scale;     ///< 1 / rms, float32
  at::Tensor quotient;  ///< x's dtype for kPlain, else float32
  at::Tensor factor;
};

PlainNorm plain_norm(const at::Tensor& x, const at::Tensor& weight, double eps, RmsNormKind kind) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(wide.pow(2).mean(-1, /*keepdim=*/true) + eps);
  if (kind == RmsNormKind::kPlain) return {scale, (wide * scale).to(x.scalar_type()), weight};
  at::Tensor factor = weight.to(at::kFloat);
  if (kind == RmsNormKind::kOnePlusWeight) factor = factor + 1;
  return {scale, wide * scale, factor};
}

ResidualRmsNorm plain_forward(const at::Tensor& x, const at::Tensor& residual,
                              const at::Tensor& weight, double eps, RmsNormKind kind) {
  const at::Tensor sum = residual.defined() ? x + residual : at::Tensor();
  const PlainNorm norm = plain_norm(sum.defined() ? sum : x, weight, eps, kind);
  return {sum, (norm.quotient * norm.factor).to(x.scalar_type())};
}

/// d_x = scale * (g - quotient * mean(g * quotient)) + d_sum with g = d_normed * factor.
RmsNormGradients plain_backward(const at::Tensor& sum, const at::Tensor& weight,
                                const at::Tensor& d_sum, const at::Tensor& d_normed, double eps,
                                RmsNormKind kind, bool wants_weight) {
  const PlainNorm norm = plain_norm(sum, weight, eps, kind);
  const at::Tensor wide = d_normed.to(at::kFloat);
  const at::Tensor grad = wide * norm.factor.to(at::kFloat);
  const at::Tensor quotient = sum.to(at::kFloat) * norm.scale;
  at::Tensor d_x = norm.scale * (grad - quotient * (grad * quotient).mean(-1, /*keepdim=*/true));
  if (d_sum.defined()) d_x = d_x + d_sum.to(at::kFloat);
  at::Tensor d_weight;
  if (wants_weight) {
    d_weight = (wide * norm.quotient.to(at::kFloat))
                   .reshape({-1, weight.size(0)})
                   .sum(0)
                   .to(weight.scalar_type());
  }
  return {d_x.to(sum.scalar_type()), d_weight};
}

void check(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight) {
  const at::ScalarType dtype = x.scalar_type();
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf,
              "residual_rms_norm takes float32, bfloat16 and float16, not ", dtype);
  TORCH_CHECK(x.dim() > 0 && x.size(-1) > 0, "residual_rms_norm of rows without elements");
  TORCH_CHECK(x.sizes() == residual.sizes(), "residual_rms_norm: x is of shape ", x.sizes(),
              ", residual of ", residual.sizes());
  TORCH_CHECK(weight.dim() == 1 && weight.size(0) == x.size(-1), "residual_rms_norm: rows of ",
              x.size(-1), ", weight of shape ", weight.sizes());
  for (const at::Tensor* other : {&residual, &weight}) {
    TORCH_CHECK(other->scalar_type() == dtype && other->device() == x.device(),
                "residual_rms_norm: x is ", dtype, " on ", x.device(), ", another argument ",
                other->scalar_type(), " on ", other->device());
  }
}

struct ResidualRmsNormFunction : Function<ResidualRmsNormFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x,
                               const at::Tensor& residual, const at::Tensor& weight, double eps,
                               int64_t kind) {
    const ResidualRmsNorm out = rms_norm_implementation(x).forward(x, residual, weight, eps,
                                                                   static_cast<RmsNormKind>(kind));
    ctx->save_for_backward({out.sum, weight});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["kind"] = kind;
    ctx->set_materialize_grads(false);
    return {out.sum, out.normed};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &sum = saved[0], &weight = saved[1];
    const at::Tensor d_sum = grads[0].defined() ? grads[0].contiguous() : grads[0];
    if (!grads[1].defined()) return {d_sum, d_sum, {}, {}, {}};
    const RmsNormGradients out = rms_norm_implementation(sum).backward(
        sum, weight, d_sum, grads[1].contiguous(), ctx->saved_data["eps"].toDouble(),
        static_cast<RmsNormKind>(ctx->saved_data["kind"].toInt()), ctx->needs_input_grad(2));
    return {out.x, out.x, out.weight, {}, {}};
  }
};

}  // namespace

const RmsNormImplementation kPlainRmsNorm = {&plain_forward, &plain_backward};

const RmsNormImplementation& rms_norm_implementation(const at::Tensor& x) {
  if (x.is_cpu() && x.scalar_type() != at::kHalf) return kCpuRmsNorm;
  const CudaModule* const module = cuda_kernels(x.device());
  return module == nullptr ? kPlainRmsNorm : module->residual_rms_norm;
}

ResidualRmsNorm residual_rms_norm(const at::Tensor& x, const at::Tensor& residual,
                                  const at::Tensor& weight, double eps, RmsNormKind kind) {
  check(x, residual, weight);
  const at::Tensor in = x.contiguous(), added = residual.contiguous(), factor = weight.contiguous();
  const bool needs_grad = at::GradMode::is_enabled() &&
                          (x.requires_grad() || residual.requires_grad() || weight.requires_grad());
  if (!needs_grad) return rms_norm_implementation(in).forward(in, added, factor, eps, kind);
  const auto out =
      ResidualRmsNormFunction::apply(in, added, factor, eps, static_cast<int64_t>(kind));
  return {out[0], out[1]};
}

}  // namespace lorry::ops
