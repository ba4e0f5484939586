#include "ops/gate.h"

#include <ATen/ATen.h>

namespace lorry::ops {

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

}  // namespace lorry::ops
