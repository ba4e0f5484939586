#include "model/transformer.h"

#include <ATen/ATen.h>

#include "model/fused_ops.h"
#include "model/rope.h"

namespace lorry::model {

// T tokens, H query heads, K key/value heads, D head size.

at::Tensor Transformer::forward(const at::Tensor& input_ids, const at::Tensor& positions,
                                AttentionView& attention, const AdapterView& adapters) const {
  at::Tensor x = at::embedding(embed_tokens_, input_ids);  // (T, hidden_size)
  const RopeAngles angles = rope_angles(positions, inv_freq_, rope_attention_scale_, dtype());
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const BlockWeights& block = blocks_[i];
    const auto layer = static_cast<int64_t>(i);
    x = x + attention_block(rms_norm(x, block.input_norm, config_.rms_norm_eps), block, layer,
                            angles, attention, adapters);
    x = x + mlp_block(rms_norm(x, block.post_attention_norm, config_.rms_norm_eps), block, layer,
                      adapters);
  }
  return rms_norm(x, norm_, config_.rms_norm_eps);
}

at::Tensor Transformer::attention_block(const at::Tensor& x, const BlockWeights& block,
                                        int64_t layer, const RopeAngles& angles,
                                        AttentionView& attention,
                                        const AdapterView& adapters) const {
  const int64_t d = config_.head_dim;
  const auto project = [&](Projection projection, const at::Tensor& input) {
    const auto p = static_cast<size_t>(projection);
    return linear_with_adapters(input, block.weight[p], block.bias[p], adapters, layer, projection);
  };
  at::Tensor q = project(Projection::kQ, x).view({-1, config_.num_attention_heads, d});
  at::Tensor k = project(Projection::kK, x).view({-1, config_.num_key_value_heads, d});
  const at::Tensor v = project(Projection::kV, x).view({-1, config_.num_key_value_heads, d});
  if (config_.qk_norm) {
    q = rms_norm(q, block.q_norm, config_.rms_norm_eps);
    k = rms_norm(k, block.k_norm, config_.rms_norm_eps);
  }
  q = rotate(q, angles.cos, angles.sin);
  k = rotate(k, angles.cos, angles.sin);
  const at::Tensor out = attention.attend(layer, q, k, v, config_.sliding_window[layer]);
  return project(Projection::kO, out.reshape({-1, config_.num_attention_heads * d}));
}

at::Tensor Transformer::mlp_block(const at::Tensor& x, const BlockWeights& block, int64_t layer,
                                  const AdapterView& adapters) const {
  const auto project = [&](Projection projection, const at::Tensor& input) {
    const auto p = static_cast<size_t>(projection);
    return linear_with_adapters(input, block.weight[p], block.bias[p], adapters, layer, projection);
  };
  const at::Tensor gate = project(Projection::kGate, x);
  const at::Tensor up = project(Projection::kUp, x);
  return project(Projection::kDown, at::silu(gate) * up);
}

at::Tensor Transformer::logits(const at::Tensor& hidden) const {
  return at::linear(hidden, head_weight());
}

const at::Tensor& Transformer::head_weight() const {
  return lm_head_.defined() ? lm_head_ : embed_tokens_;
}

}  // namespace lorry::model
