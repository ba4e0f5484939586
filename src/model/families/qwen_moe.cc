// Qwen3-MoE and Qwen2-MoE: Qwen's attention, a softmax router over many small experts.
#include <algorithm>

#include "model/families/readers.h"
#include "model/spec_builder.h"

namespace lorry::model {
namespace {

using Attention = SpecBuilder::AttentionOptions;

struct Experts {
  int64_t count = 0, active = 0, width = 0, shared_width = 0, step = 1;
  bool renormalize = false;
  std::vector<int64_t> dense_layers;

  bool has_layer(int64_t i) const {
    const bool dense = std::find(dense_layers.begin(), dense_layers.end(), i) != dense_layers.end();
    return !dense && count > 0 && (i + 1) % step == 0;
  }
};

Experts read_experts(ConfigReader& config, int64_t active, int64_t count, int64_t width) {
  Experts experts;
  // transformers 5 saves the count under Mixtral's name.
  const char* field = config.has("num_local_experts") ? "num_local_experts" : "num_experts";
  experts.count = config.count(field, count);
  experts.active = config.positive("num_experts_per_tok", active);
  experts.width = config.positive("moe_intermediate_size", width);
  experts.step = config.positive("decoder_sparse_step", 1);
  experts.renormalize = config.boolean("norm_topk_prob", false);
  for (const double layer : config.numbers("mlp_only_layers")) {
    experts.dense_layers.push_back(static_cast<int64_t>(layer));
  }
  return experts;
}

Result<ModelSpec> read_qwen_moe(ConfigReader& config, SpecBuilder& b, const Experts& experts,
                                Attention attention, const std::vector<int64_t>& windows) {
  LORRY_ASSIGN(attention.rope, b.rope());
  for (int64_t i = 0; i < b.layers; ++i) {
    BlockSpec block;
    block.before_attention = b.norm(i, "input_layernorm", b.hidden);
    attention.window = windows[i];
    block.attention = b.attention(i, attention);
    block.before_mlp = b.norm(i, "post_attention_layernorm", b.hidden);
    if (!experts.has_layer(i)) {
      block.mlp = b.mlp(i, "mlp", b.width);
      b.spec.layers.push_back(std::move(block));
      continue;
    }
    MoeSpec moe;
    moe.active = experts.active;
    moe.router.weight = b.tensor(b.prefix(i) + "mlp.gate.weight", {experts.count, b.hidden}, i);
    moe.router.renormalize = experts.renormalize;
    moe.experts = b.experts(i, "mlp.experts", experts.count, experts.width);
    if (experts.shared_width > 0) {
      moe.shared = b.mlp(i, "mlp.shared_expert", experts.shared_width);
      moe.shared_gate = b.linear(i, b.hidden, {{"mlp.shared_expert_gate", 1}}, Shard::kNone);
    }
    block.mlp = std::move(moe);
    b.spec.layers.push_back(std::move(block));
  }
  return b.finish();
}

}  // namespace

Result<ModelSpec> read_qwen3_moe(ConfigReader& config) {
  SpecBuilder b(config, {.kv_heads = 4, .positions = 32768});
  LORRY_TRY(b.status());
  const bool bias = config.boolean("attention_bias", false);
  const bool slides = config.boolean("use_sliding_window", false);
  const int64_t window = slides ? config.positive("sliding_window", 4096) : 0;
  return read_qwen_moe(
      config, b, read_experts(config, 8, 128, 768),
      {.qkv_bias = bias, .out_bias = bias, .qk_norm = Attention::QkNorm::kEachHead},
      std::vector<int64_t>(b.layers, window));
}

Result<ModelSpec> read_qwen2_moe(ConfigReader& config) {
  SpecBuilder b(config, {.kv_heads = 16, .positions = 32768});
  LORRY_TRY(b.status());
  Experts experts = read_experts(config, 4, 60, 1408);
  experts.shared_width = config.positive("shared_expert_intermediate_size", 5632);
  return read_qwen_moe(config, b, experts, {.qkv_bias = config.boolean("qkv_bias", true)},
                       qwen_windows(config, b.layers));
}

}  // namespace lorry::model
