// What the optimiser moves: an adapter's matrices, or all weights of the model.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "model/transformer.h"

namespace lorry::train {

/// Parameters in float32 with a gradient buffer each. Full training of a 16-bit model keeps float32
/// masters beside the weights: gradients are summed in float32, and each update writes the rounded
/// masters back. Not thread-safe.
class Trainable {
 public:
  static Trainable of_adapter(const model::LoraAdapter& adapter);
  /// Gives the model's weights memory of their own (they may be mapped from a file) and makes them
  /// require gradients.
  static Trainable of_model(const model::Transformer& model);

  const std::vector<std::string>& names() const { return names_; }
  const std::vector<at::Tensor>& params() const { return params_; }
  const std::vector<at::Tensor>& grads() const { return grads_; }
  /// The float32 gradient buffer of the head's weight; undefined when the head is frozen.
  const at::Tensor& head_grad() const { return head_grad_; }
  int64_t size() const;

  void zero_grads();
  /// After each backward pass: adds what autograd left in 16 bits to the buffers.
  void collect_grads();
  /// After each change of the parameters: rounds the masters into the model's weights.
  void write_back();

 private:
  void add(std::string name, at::Tensor leaf);

  std::vector<std::string> names_;
  std::vector<at::Tensor> leaves_;  // what the forward pass reads
  std::vector<at::Tensor> params_;  // the leaf itself where it is float32
  std::vector<at::Tensor> grads_;
  at::Tensor head_grad_;
};

}  // namespace lorry::train
