#include "ops/norm_rope.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/cuda_module.h"

namespace lorry::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

struct NormRope : Function<NormRope> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& joined,
                            const NormRopeImplementation& implementation, const HeadNorms& norms,
                            const at::Tensor& cos, const at::Tensor& sin) {
    ctx->save_for_backward({joined, norms.q_weight, norms.k_weight, cos, sin});
    ctx->saved_data["implementation"] = reinterpret_cast<int64_t>(&implementation);
    ctx->saved_data["heads"] = norms.heads;
    ctx->saved_data["kv_heads"] = norms.kv_heads;
    ctx->saved_data["head_dim"] = norms.head_dim;
    ctx->saved_data["eps"] = norms.eps;
    ctx->saved_data["kind"] = static_cast<int64_t>(norms.kind);
    return implementation.forward(joined, norms, cos, sin);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto number = [&](const char* name) { return ctx->saved_data[name].toInt(); };
    const auto* implementation =
        reinterpret_cast<const NormRopeImplementation*>(number("implementation"));
    const HeadNorms norms{number("heads"),
                          number("kv_heads"),
                          number("head_dim"),
                          saved[1],
                          saved[2],
                          ctx->saved_data["eps"].toDouble(),
                          static_cast<RmsNormKind>(number("kind"))};
    return {implementation->backward(grads[0].contiguous(), saved[0], norms, saved[3], saved[4]),
            {},
            {},
            {},
            {}};
  }
};

}  // namespace

at::Tensor norm_rope_by(const NormRopeImplementation& implementation, const at::Tensor& joined,
                        const HeadNorms& norms, const at::Tensor& cos, const at::Tensor& sin) {
  const bool needs_grad = at::GradMode::is_enabled() && joined.requires_grad();
  return needs_grad ? NormRope::apply(joined, implementation, norms, cos, sin)
                    : implementation.forward(joined, norms, cos, sin);
}

at::Tensor norm_rope(const at::Tensor& joined, const HeadNorms& norms, const at::Tensor& cos,
                     const at::Tensor& sin) {
  const CudaModule* const module = cuda_kernels(joined.device());
  const bool is_frozen = !norms.q_weight.requires_grad() && !norms.k_weight.requires_grad();
  if (module == nullptr || !is_frozen || !module->norm_rope.takes(joined, norms, cos)) return {};
  return norm_rope_by(module->norm_rope, joined, norms, cos.contiguous(), sin.contiguous());
}

}  // namespace lorry::ops
