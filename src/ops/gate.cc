#include "ops/gate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/cuda_module.h"

namespace lorry::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

struct Halves {
  at::Tensor gate, up;
  explicit Halves(const at::Tensor& joined)
      : gate(joined.narrow(1, 0, joined.size(1) / 2)),
        up(joined.narrow(1, joined.size(1) / 2, joined.size(1) / 2)) {}
};

const char* gelu_form(Activation::Kind kind) {
  return kind == Activation::Kind::kGeluTanh ? "tanh" : "none";
}

at::Tensor activated(const at::Tensor& gate, Activation::Kind kind) {
  return kind == Activation::Kind::kSilu ? at::silu(gate) : at::gelu(gate, gelu_form(kind));
}

/// The kernels for such halves, or null.
const GateImplementation* kernels(const at::Tensor& gate, const at::Tensor& up) {
  const auto is_rows = [](const at::Tensor& x) { return x.dim() == 2 && x.stride(1) == 1; };
  const CudaModule* const module = cuda_kernels(gate.device());
  return module != nullptr && is_rows(gate) && is_rows(up) ? &module->gate : nullptr;
}

at::Tensor forward(const Halves& x, const Activation& activation) {
  const GateImplementation* const ours = kernels(x.gate, x.up);
  if (ours != nullptr) return ours->forward(x.gate, x.up, activation);
  return activated(x.gate, activation.kind).mul_(x.up);
}

/// Writes the gradients of both halves to d.
void backward(const at::Tensor& grad, const Halves& x, const Activation& activation, Halves d) {
  const GateImplementation* const ours = kernels(x.gate, x.up);
  if (ours != nullptr) {
    return ours->backward(grad.contiguous(), x.gate, x.up, activation, d.gate, d.up);
  }
  at::Tensor work = activated(x.gate, activation.kind);
  at::mul_out(d.up, grad, work);
  at::mul_out(work, grad, x.up);
  if (activation.kind == Activation::Kind::kSilu) {
    at::silu_backward_out(d.gate, work, x.gate);
  } else {
    at::gelu_backward_out(d.gate, work, x.gate, gelu_form(activation.kind));
  }
}

void save(AutogradContext* ctx, const Activation& activation) {
  ctx->saved_data["kind"] = static_cast<int64_t>(activation.kind);
  ctx->saved_data["alpha"] = activation.alpha;
  ctx->saved_data["limit"] = activation.limit;
}

Activation saved_activation(AutogradContext* ctx) {
  return {static_cast<Activation::Kind>(ctx->saved_data["kind"].toInt()),
          ctx->saved_data["alpha"].toDouble(), ctx->saved_data["limit"].toDouble()};
}

struct Gated : Function<Gated> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up,
                            const Activation& activation) {
    ctx->save_for_backward({gate_up});
    save(ctx, activation);
    return ops::forward(Halves(gate_up), activation);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor joined = ctx->get_saved_variables()[0];
    const at::Tensor out = at::empty(joined.sizes(), joined.options());
    ops::backward(grads[0], Halves(joined), saved_activation(ctx), Halves(out));
    return {out, {}};
  }
};

/// Of halves that lie apart, by a kernel.
struct GatedHalves : Function<GatedHalves> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate, const at::Tensor& up,
                            const Activation& activation) {
    ctx->save_for_backward({gate, up});
    save(ctx, activation);
    return kernels(gate, up)->forward(gate, up, activation);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto x = ctx->get_saved_variables();
    const at::Tensor d_gate = at::empty(x[0].sizes(), x[0].options());
    const at::Tensor d_up = at::empty(x[1].sizes(), x[1].options());
    kernels(x[0], x[1])
        ->backward(grads[0].contiguous(), x[0], x[1], saved_activation(ctx), d_gate, d_up);
    return {d_gate, d_up, {}};
  }
};

}  // namespace

at::Tensor gated(const at::Tensor& gate, const at::Tensor& up, const Activation& activation) {
  if (kernels(gate, up) != nullptr) return GatedHalves::apply(gate, up, activation);
  switch (activation.kind) {
    case Activation::Kind::kSilu:
      return at::silu(gate) * up;
    case Activation::Kind::kGeluTanh:
      return at::gelu(gate, "tanh") * up;
    case Activation::Kind::kGelu:
      return at::gelu(gate, "none") * up;
    case Activation::Kind::kClampedSilu: {
      const at::Tensor g = gate.clamp_max(activation.limit);
      const at::Tensor u = up.clamp(-activation.limit, activation.limit);
      return (u + 1) * (g * at::sigmoid(g * activation.alpha));
    }
  }
  return {};
}

at::Tensor gated(const at::Tensor& gate_up, const Activation& activation) {
  const Halves halves(gate_up);
  const bool has_pass = activation.kind != Activation::Kind::kClampedSilu ||
                        kernels(halves.gate, halves.up) != nullptr;
  return has_pass ? Gated::apply(gate_up, activation) : gated(halves.gate, halves.up, activation);
}

}  // namespace lorry::ops
