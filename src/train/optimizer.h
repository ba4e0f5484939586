// AdamW, gradient clipping and loss scaling, in the numbers of torch.optim and torch.amp.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "model/safetensors.h"

namespace lorry::train {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0.01;
};

/// torch.optim.AdamW with float32 states: decoupled weight decay, bias correction, no amsgrad.
/// Source: Loshchilov and Hutter 2019, arXiv:1711.05101. Not thread-safe.
class AdamW {
 public:
  /// `decay[i]` says whether weight decay applies to `params[i]`. All float32 on one device.
  AdamW(std::vector<at::Tensor> params, std::vector<bool> decay, AdamWOptions options);

  /// One update of the parameters in place.
  void step(const std::vector<at::Tensor>& grads, double learning_rate);

  /// The states as tensors, named after the parameters ("exp_avg.NAME", ...), to be stored.
  model::NamedTensors state(const std::vector<std::string>& names) const;
  /// Takes over what `state` gave. Corrupt data if a tensor is missing or has another shape.
  Result<> load_state(const model::SafetensorsReader& reader,
                      const std::vector<std::string>& names);

 private:
  struct Group {
    std::vector<size_t> members;  // indices into params
    std::vector<at::Tensor> params, exp_avgs, exp_avg_sqs, steps;
    double weight_decay;
  };
  std::vector<Group> groups_;  // with and without decay
  AdamWOptions options_;
  size_t size_;
};

/// Whether Trainer's weight decay applies to a parameter: not to biases and norms.
/// Source: `transformers` trainer.py, get_decay_parameter_names.
bool has_weight_decay(const std::string& name);

/// The 2-norm over all gradients.
double grad_norm(const std::vector<at::Tensor>& grads);
/// Scales gradients of norm `norm` to at most `max_norm`, as torch.nn.utils.clip_grad_norm_.
void clip_grads(const std::vector<at::Tensor>& grads, double norm, double max_norm);

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
