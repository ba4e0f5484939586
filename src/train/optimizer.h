// AdamW, gradient clipping and loss scaling, in the numbers of torch.optim and torch.amp.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "model/safetensors.h"
#include "train/trainable.h"

namespace lorry::train {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0.01;
};

/// torch.optim.AdamW with float32 states: decoupled weight decay, bias correction, no amsgrad.
/// Source: Loshchilov and Hutter 2019, arXiv:1711.05101. Not thread-safe.
class AdamW {
 public:
  /// Moves the parameters of `trainable`, which outlives it, by the gradients there.
  AdamW(const Trainable& trainable, AdamWOptions options);

  /// One update of the parameters in place. `divisor`, a float32 scalar on their device, divides
  /// the gradients first (in place); where `skip`, another, is 1, nothing is done and no step
  /// counted.
  void step(double learning_rate, const at::Tensor& divisor = {}, const at::Tensor& skip = {});

  /// The states as tensors, named after the parameters ("exp_avg.NAME", ...), to be stored.
  model::NamedTensors state() const;
  /// Takes over what `state` gave. Corrupt data if a tensor is missing or has another shape.
  Result<> load_state(const model::SafetensorsReader& reader);

 private:
  const Trainable& trainable_;
  AdamWOptions options_;
  at::Tensor exp_avg_, exp_avg_sq_;  // laid out as the parameters
  at::Tensor steps_;
};

/// Whether Trainer's weight decay applies to a parameter: not to biases and norms.
/// Source: `transformers` trainer.py, get_decay_parameter_names.
bool has_weight_decay(const std::string& name);

/// The 2-norm of Trainable::flat_grads: a float32 scalar on their device.
at::Tensor grad_norm(const at::Tensor& flat_grads);
/// What gradients of norm `norm` are divided by so that it is at most `max_norm`: a float32 scalar
/// of at least 1. Source: torch.nn.utils.clip_grad_norm_.
at::Tensor clip_divisor(const at::Tensor& norm, double max_norm);

/// Dynamic loss scale for float16, as torch.amp.GradScaler with its defaults.
class GradScaler {
 public:
  explicit GradScaler(bool enabled) : scale_(enabled ? 65536.0 : 1.0), enabled_(enabled) {}
  bool enabled() const { return enabled_; }
  double scale() const { return scale_; }
  int64_t good_steps() const { return good_steps_; }
  void restore(double scale, int64_t good_steps) { scale_ = scale, good_steps_ = good_steps; }
  /// After each step: halves the scale if its gradients overflowed, doubles it after 2000 that did
  /// not.
  void update(bool overflowed);

 private:
  double scale_;
  int64_t good_steps_ = 0;
  bool enabled_;
};

}  // namespace lorry::train
