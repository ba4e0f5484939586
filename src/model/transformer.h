// The decoder: one block serves Qwen2/2.5, Llama 2/3.x, Qwen3 and Mistral.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "model/attention.h"
#include "model/config.h"
#include "model/lora.h"
#include "model/safetensors.h"
#include "store/bucket.h"

namespace lorry::model {

/// Weights of one block, (out, in) as checkpoints store them. Biases and norms that the
/// architecture lacks are undefined tensors.
struct BlockWeights {
  at::Tensor input_norm, post_attention_norm, q_norm, k_norm;
  std::array<at::Tensor, 7> weight;  ///< by Projection
  std::array<at::Tensor, 7> bias;
};

/// One model on one device. Steps may run from one thread at a time; the weights do not change
/// unless training owns them.
class Transformer {
 public:
  /// Reads config.json and the weights of a Hub-layout directory into `dtype` on `device`.
  static Result<std::shared_ptr<Transformer>> load(const store::Bucket& bucket,
                                                   const std::string& dir, at::ScalarType dtype,
                                                   at::Device device);

  const ModelConfig& config() const { return config_; }
  at::ScalarType dtype() const { return embed_tokens_.scalar_type(); }
  at::Device device() const { return embed_tokens_.device(); }

  /// One step over a flat run of T tokens. input_ids, positions: (T) int64 on the device.
  /// Returns the hidden state after the last norm, (T, hidden_size). Differentiable in the adapter
  /// (and in the weights, where they require gradients).
  at::Tensor forward(const at::Tensor& input_ids, const at::Tensor& positions,
                     AttentionView& attention, const AdapterView& adapters) const;

  /// Logits of the rows asked for: (R, hidden_size) -> (R, vocab_size), in the model's dtype.
  at::Tensor logits(const at::Tensor& hidden) const;
  /// The head's weight, (vocab_size, hidden_size); the embedding's where they are tied.
  const at::Tensor& head_weight() const;

  /// Every weight under its checkpoint name, in checkpoint order; a tied head is not repeated.
  NamedTensors named_weights() const;

 private:
  Transformer() = default;
  ModelConfig config_;
  at::Tensor embed_tokens_, norm_, lm_head_;  // lm_head_ undefined when tied
  std::vector<BlockWeights> blocks_;
  at::Tensor inv_freq_;  // (D/2) float32
  double rope_attention_scale_ = 1.0;
};

/// "auto" is the checkpoint's dtype on CPU and, on a GPU, bf16 where it has it and else fp16.
Result<at::ScalarType> resolve_dtype(const std::string& name, const ModelConfig& config,
                                     at::Device device);
/// "auto" takes a CUDA device if there is one. Loads libtorch_cuda on the way.
Result<at::Device> resolve_device(const std::string& name);

}  // namespace lorry::model
