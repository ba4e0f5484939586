// Qwen 2, 2.5 and 3, dense.
#include "model/families/readers.h"
#include "model/spec_builder.h"

namespace lorry::model {
namespace {

using Attention = SpecBuilder::AttentionOptions;

Result<ModelSpec> read_qwen(ConfigReader& config, const Defaults& defaults, Attention attention) {
  SpecBuilder b(config, defaults);
  LORRY_TRY(b.status());
  LORRY_ASSIGN(attention.rope, b.rope());
  const auto windows = qwen_windows(config, b.layers);
  for (int64_t i = 0; i < b.layers; ++i) {
    BlockSpec block;
    block.before_attention = b.norm(i, "input_layernorm", b.hidden);
    attention.window = windows[i];
    block.attention = b.attention(i, attention);
    block.before_mlp = b.norm(i, "post_attention_layernorm", b.hidden);
    block.mlp = b.mlp(i, "mlp", b.width);
    b.spec.layers.push_back(std::move(block));
  }
  return b.finish();
}

}  // namespace

std::vector<int64_t> qwen_windows(ConfigReader& config, int64_t layers) {
  if (!config.boolean("use_sliding_window", false)) return std::vector<int64_t>(layers, 0);
  const int64_t window =
      config.is_null("sliding_window") ? 0 : config.positive("sliding_window", 4096);
  const int64_t first = config.integer("max_window_layers", 28);
  return windows_by_layer(config, layers, window, [&](int64_t i) { return i >= first; });
}

Result<ModelSpec> read_qwen2(ConfigReader& config) {
  return read_qwen(config, {.kv_heads = 32, .positions = 32768}, {.qkv_bias = true});
}

Result<ModelSpec> read_qwen3(ConfigReader& config) {
  const bool bias = config.boolean("attention_bias", false);
  return read_qwen(config, {.kv_heads = 32, .head_dim = 128, .positions = 32768},
                   {.qkv_bias = bias, .out_bias = bias, .qk_norm = Attention::QkNorm::kEachHead});
}

}  // namespace lorry::model
