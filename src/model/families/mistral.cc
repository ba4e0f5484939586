// Mistral, Ministral and Ministral 3: Llama without biases. Mistral's layers all slide or none;
// Ministral's by layer; Ministral 3 stretches its context by YaRN and scales queries far out.
#include "model/families/readers.h"
#include "model/spec_builder.h"

namespace lorry::model {
namespace {

Result<ModelSpec> finish_mistral(SpecBuilder& b, int rope, const std::vector<int64_t>& windows) {
  for (int64_t i = 0; i < b.layers; ++i) {
    BlockSpec block;
    block.before_attention = b.norm(i, "input_layernorm", b.hidden);
    block.attention = b.attention(i, {.rope = rope, .window = windows[i]});
    block.before_mlp = b.norm(i, "post_attention_layernorm", b.hidden);
    block.mlp = b.mlp(i, "mlp", b.width);
    b.spec.layers.push_back(std::move(block));
  }
  return b.finish();
}

/// An explicit null means none; silence means 4096.
int64_t mistral_window(ConfigReader& config) {
  return config.is_null("sliding_window") ? 0 : config.positive("sliding_window", 4096);
}

}  // namespace

Result<ModelSpec> read_mistral(ConfigReader& config) {
  SpecBuilder b(config, {.kv_heads = 8, .positions = 131072});
  LORRY_TRY(b.status());
  LORRY_ASSIGN(const int rope, b.rope());
  return finish_mistral(b, rope, std::vector<int64_t>(b.layers, mistral_window(config)));
}

Result<ModelSpec> read_ministral(ConfigReader& config) {
  SpecBuilder b(config, {.kv_heads = 8, .positions = 131072});
  LORRY_TRY(b.status());
  LORRY_ASSIGN(const int rope, b.rope());
  return finish_mistral(
      b, rope,
      windows_by_layer(config, b.layers, mistral_window(config), [](int64_t) { return true; }));
}

Result<ModelSpec> read_ministral3(ConfigReader& config) {
  SpecBuilder b(
      config,
      {.kv_heads = 8, .head_dim = 128, .positions = 262144, .eps = 1e-5, .rope_theta = 1e6});
  LORRY_TRY(b.status());
  int rope = 0;
  if (config.has("rope_parameters") || config.has("rope_scaling")) {
    LORRY_ASSIGN(rope, b.rope());
  } else {
    RopeSpec yarn{.type = RopeSpec::Type::kYarn, .dim = b.head_dim, .theta = 1e6, .factor = 16};
    yarn.original_max_position_embeddings = 16384;
    yarn.mscale = yarn.mscale_all_dim = 1;
    yarn.query_scale_beta = 0.1;
    rope = b.add_rope(std::move(yarn));
  }
  const int64_t window = config.has("sliding_window") ? config.positive("sliding_window", 4096) : 0;
  return finish_mistral(b, rope, std::vector<int64_t>(b.layers, window));
}

Result<ModelSpec> read_mistral3(ConfigReader& config) {
  const std::string type = config.text("model_type", "mistral");
  if (type == "mistral") return read_mistral(config);
  if (type == "ministral3") return read_ministral3(config);
  return unsupported("config.json: a Mistral 3 around a " + type + " model is not supported");
}

}  // namespace lorry::model
