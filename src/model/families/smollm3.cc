// SmolLM3: Llama with every fourth layer left without rotary embedding.
#include "model/families/readers.h"
#include "model/spec_builder.h"

namespace lorry::model {

Result<ModelSpec> read_smollm3(ConfigReader& config) {
  SpecBuilder b(
      config, {.kv_heads = 4, .positions = 32768, .rope_theta = 2e6, .tie_word_embeddings = true});
  LORRY_TRY(b.status());
  LORRY_ASSIGN(const int rope, b.rope());
  std::vector<int64_t> has_rope = config.per_layer("no_rope_layers", b.layers);
  const int64_t interval = config.positive("no_rope_layer_interval", 4);
  for (int64_t i = static_cast<int64_t>(has_rope.size()); i < b.layers; ++i) {
    has_rope.push_back((i + 1) % interval != 0);
  }
  const bool slides = config.boolean("use_sliding_window", false);
  const int64_t window = config.has("sliding_window") ? config.positive("sliding_window", 4096) : 0;
  const auto windows = windows_by_layer(config, b.layers, window,
                                        [&](int64_t i) { return slides && has_rope[i] == 0; });
  const bool attention_bias = config.boolean("attention_bias", false);
  const bool mlp_bias = config.boolean("mlp_bias", false);
  for (int64_t i = 0; i < b.layers; ++i) {
    BlockSpec block;
    block.before_attention = b.norm(i, "input_layernorm", b.hidden);
    block.attention = b.attention(i, {.qkv_bias = attention_bias,
                                      .out_bias = attention_bias,
                                      .rope = has_rope[i] != 0 ? rope : -1,
                                      .window = windows[i]});
    block.before_mlp = b.norm(i, "post_attention_layernorm", b.hidden);
    block.mlp = b.mlp(i, "mlp", b.width, mlp_bias);
    b.spec.layers.push_back(std::move(block));
  }
  return b.finish();
}

}  // namespace lorry::model
