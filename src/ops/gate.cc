#include "ops/gate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

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

struct Gated : Function<Gated> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up, int64_t kind) {
    ctx->save_for_backward({gate_up});
    ctx->saved_data["kind"] = kind;
    const Halves x(gate_up);
    return activated(x.gate, static_cast<Activation::Kind>(kind)).mul_(x.up);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto kind = static_cast<Activation::Kind>(ctx->saved_data["kind"].toInt());
    const at::Tensor joined = ctx->get_saved_variables()[0], &grad = grads[0];
    const Halves x(joined);
    const at::Tensor out = at::empty_like(joined);
    Halves d(out);
    at::Tensor work = activated(x.gate, kind);
    at::mul_out(d.up, grad, work);
    at::mul_out(work, grad, x.up);
    if (kind == Activation::Kind::kSilu) {
      at::silu_backward_out(d.gate, work, x.gate);
    } else {
      at::gelu_backward_out(d.gate, work, x.gate, gelu_form(kind));
    }
    return {out, {}};
  }
};

}  // namespace

at::Tensor gated(const at::Tensor& gate, const at::Tensor& up, const Activation& activation) {
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
  if (activation.kind == Activation::Kind::kClampedSilu) {
    const auto halves = gate_up.chunk(2, 1);
    return gated(halves[0], halves[1], activation);
  }
  return Gated::apply(gate_up, static_cast<int64_t>(activation.kind));
}

}  // namespace lorry::ops
