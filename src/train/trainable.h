// What the optimiser moves: an adapter's matrices, or all weights of the model.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/lora.h"
#include "model/transformer.h"

namespace lorry::train {

/// Parameters in float32 with their gradients, both laid out in one buffer: what is done to all of
/// them is one operation. Where the forward pass reads 16 bits there are rounded copies, which each
/// update writes again: of an adapter's matrices, or the weights themselves in full training, whose
/// float32 masters are here. Not thread-safe.
class Trainable {
 public:
  /// The buffers are whole rows of so many numbers.
  static constexpr int64_t kFlatRow = 1024;

  /// `dtype` is that of the model's products. The adapter's tensors become views of the buffer.
  static Trainable of_adapter(std::shared_ptr<model::LoraAdapter> adapter, at::ScalarType dtype);
  /// Gives the model's weights memory of their own (they may be mapped from a file) and makes them
  /// require gradients.
  static Trainable of_model(const model::Transformer& model);
  /// Tensors that are read as they are, laid out in the order of `memory_order`, indices into
  /// `named`.
  static Trainable of_tensors(const std::vector<std::pair<std::string, at::Tensor>>& named,
                              const std::vector<size_t>& memory_order);

  const std::vector<std::string>& names() const { return names_; }
  const std::vector<at::Tensor>& params() const { return params_; }
  const std::vector<at::Tensor>& grads() const { return grads_; }
  /// The float32 gradient buffer of the head's weight; undefined when the head is frozen.
  const at::Tensor& head_grad() const { return head_grad_; }
  int64_t size() const;

  /// All parameters and all gradients, (N) float32. The numbers between tensors and after them are
  /// 0.
  const at::Tensor& flat_params() const { return flat_params_; }
  const at::Tensor& flat_grads() const { return flat_grads_; }
  /// The first so many numbers have weight decay (has_weight_decay), the others none.
  int64_t decayed_numbers() const { return decayed_; }
  /// Parameter i's part of a buffer that is laid out alike.
  at::Tensor part(const at::Tensor& flat, size_t i) const;

  void zero_grads();
  /// After each backward pass: adds what autograd left in 16 bits to the buffers.
  void collect_grads();
  /// After each change of the parameters: rounds the masters into the model's weights.
  void write_back();

 private:
  void lay_out(const std::vector<std::pair<std::string, at::Tensor>>& named,
               const std::vector<size_t>& memory_order);

  std::vector<std::string> names_;
  std::vector<at::Tensor> leaves_;  // what the forward pass reads
  std::vector<at::Tensor> params_;  // the leaf itself where it is float32
  std::vector<at::Tensor> grads_;
  std::vector<int64_t> offsets_;
  at::Tensor flat_params_, flat_grads_;
  int64_t decayed_ = 0;
  at::Tensor head_grad_;
  std::shared_ptr<model::LoraAdapter> rounded_;  // whose matrices are rounded to `dtype_`
  at::ScalarType dtype_ = at::kFloat;
};

}  // namespace lorry::train
