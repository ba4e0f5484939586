// OLMo 2 and 3: norms after each half alone, queries and keys normed over all heads at once.
#include "model/families/readers.h"
#include "model/spec_builder.h"

namespace lorry::model {
namespace {

using Attention = SpecBuilder::AttentionOptions;

Result<ModelSpec> finish_olmo(ConfigReader& config, SpecBuilder& b,
                              const std::vector<int64_t>& windows, int sliding_rope,
                              int full_rope) {
  const bool bias = config.boolean("attention_bias", false);
  for (int64_t i = 0; i < b.layers; ++i) {
    BlockSpec block;
    block.attention = b.attention(i, {.qkv_bias = bias,
                                      .out_bias = bias,
                                      .rope = windows[i] > 0 ? sliding_rope : full_rope,
                                      .window = windows[i],
                                      .qk_norm = Attention::QkNorm::kAllHeads});
    block.after_attention = b.norm(i, "post_attention_layernorm", b.hidden);
    block.mlp = b.mlp(i, "mlp", b.width);
    block.after_mlp = b.norm(i, "post_feedforward_layernorm", b.hidden);
    b.spec.layers.push_back(std::move(block));
  }
  return b.finish();
}

}  // namespace

Result<ModelSpec> read_olmo2(ConfigReader& config) {
  SpecBuilder b(config, {.eps = 1e-5, .norm = ops::RmsNormKind::kWideWeight});
  LORRY_TRY(b.status());
  LORRY_ASSIGN(const int rope, b.rope());
  return finish_olmo(config, b, std::vector<int64_t>(b.layers, 0), rope, rope);
}

Result<ModelSpec> read_olmo3(ConfigReader& config) {
  SpecBuilder b(config, {.eps = 1e-5, .rope_theta = 500000, .norm = ops::RmsNormKind::kWideWeight});
  LORRY_TRY(b.status());
  LORRY_ASSIGN(const int full, b.rope("full_attention"));
  const bool nested =
      config.has("rope_parameters") && config["rope_parameters"].contains("sliding_attention");
  int sliding = 0;
  if (nested) {
    LORRY_ASSIGN(sliding, b.rope("sliding_attention"));
  } else {  // scaling is meant for the layers that see all
    sliding = b.add_rope({.dim = b.head_dim, .theta = b.spec.ropes[full].theta});
  }
  const int64_t window = config.positive("sliding_window", 4096);
  const auto windows =
      windows_by_layer(config, b.layers, window, [](int64_t i) { return (i + 1) % 4 != 0; });
  return finish_olmo(config, b, windows, sliding, full);
}

}  // namespace lorry::model
