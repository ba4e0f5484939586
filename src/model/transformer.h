// The decoder: one block serves Qwen2/2.5, Llama 2/3.x, Qwen3 and Mistral.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "hub/model_dir.h"
#include "model/attention.h"
#include "model/config.h"
#include "model/device.h"
#include "model/lora.h"
#include "model/safetensors.h"
#include "store/bucket.h"

namespace lorry::model {

struct RopeAngles;

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
  /// The tensors are the model's own, not copies. After `load` they may lie in a file mapped
  /// read-only; whoever wants to write to them gives them memory of their own first.
  NamedTensors named_weights() const;

 private:
  friend Result<> check_checkpoint(const store::Bucket& bucket, const std::string& dir);
  Transformer() = default;
  /// Calls fn(name, shape, tensor) for each weight that the configuration asks for.
  template <typename Self, typename Fn>
  static void visit_weights(Self& self, Fn&& fn);
  Result<> read_weights(const SafetensorsReader& reader, at::ScalarType dtype, at::Device device);
  at::Tensor attention_block(const at::Tensor& x, const BlockWeights& block, int64_t layer,
                             const RopeAngles& angles, AttentionView& attention,
                             const AdapterView& adapters) const;
  at::Tensor mlp_block(const at::Tensor& x, const BlockWeights& block, int64_t layer,
                       const AdapterView& adapters) const;

  ModelConfig config_;
  at::Tensor embed_tokens_, norm_, lm_head_;  // lm_head_ undefined when tied
  std::vector<BlockWeights> blocks_;
  at::Tensor inv_freq_;  // (D/2) float32
  double rope_attention_scale_ = 1.0;
};

/// What config.json and generation_config.json say. Where they name no dtype, the stored one is
/// filled in (hub::ModelDir::stored_dtype).
Result<ModelConfig> load_model_config(const hub::ModelDir& files);
Result<ModelConfig> load_model_config(const store::Bucket& bucket, const std::string& dir);

/// Whether `Transformer::load` would find a supported architecture and every weight in its right
/// shape. Reads config.json and the safetensors headers only.
Result<> check_checkpoint(const store::Bucket& bucket, const std::string& dir);

}  // namespace lorry::model
