// The product of an MLP's two halves.
#pragma once

#include <ATen/core/Tensor.h>

namespace lorry::ops {

/// act(gate) * up, and GPT-OSS's form of it.
struct Activation {
  enum class Kind {
    kSilu,         ///< x sigmoid(x)
    kGeluTanh,     ///< 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
    kGelu,         ///< x Phi(x)
    kClampedSilu,  ///< min(gate, limit) sigmoid(alpha gate) * (clamp(up, +-limit) + 1)
  };
  Kind kind = Kind::kSilu;
  double alpha = 1, limit = 0;  ///< kClampedSilu
};

/// gate, up: one shape, any float dtype. Differentiable. One kernel on CUDA, which rounds the
/// activation before the product as libtorch's two passes do; on a CPU these two measured faster
/// than one of our own.
at::Tensor gated(const at::Tensor& gate, const at::Tensor& up, const Activation& activation);

/// The same of both halves side by side: gate_up (T, 2 w), gate first; returns (T, w). One node of
/// autograd's graph, which keeps gate_up alone and computes the activation again.
at::Tensor gated(const at::Tensor& gate_up, const Activation& activation);

/// Without autograd, for CUDA devices. gate, up, d_gate, d_up: (T, w) of any row stride; out, grad:
/// contiguous. float32, bfloat16 or float16.
struct GateImplementation {
  at::Tensor (*forward)(const at::Tensor& gate, const at::Tensor& up, const Activation& activation);
  void (*backward)(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up,
                   const Activation& activation, const at::Tensor& d_gate, const at::Tensor& d_up);
};

}  // namespace lorry::ops
