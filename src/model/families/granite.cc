// Granite 3 and the dense Granite 4: Llama with multipliers on embeddings, scores, residuals and
// logits.
#include <fmt/format.h>

#include "model/families/readers.h"
#include "model/spec_builder.h"

namespace lorry::model {
namespace {

void read_multipliers(ConfigReader& config, SpecBuilder& b, double& attention, double& residual) {
  b.spec.embedding_scale = config.number("embedding_multiplier", 1);
  b.spec.logit_scale = 1 / config.number("logits_scaling", 1);
  attention = config.number("attention_multiplier", 1);
  residual = config.number("residual_multiplier", 1);
}

/// Layers of state-space models are another kind of model.
Result<> require_attention_layers(ConfigReader& config, int64_t layers) {
  const char* field = config.has("layer_types") ? "layer_types" : "layers_block_type";
  const Json types = config.has(field) ? config[field] : Json::array();
  const bool right_size = types.is_array() && static_cast<int64_t>(types.size()) == layers;
  for (const Json& type : right_size ? types : Json::array()) {
    if (type != "attention" && type != "full_attention") {
      return unsupported(fmt::format(
          "config.json: a Granite 4 hybrid with layers of type {} is not supported; the models "
          "of attention layers alone are",
          dump_json(type)));
    }
  }
  if (right_size) return {};
  return unsupported(
      "config.json: a Granite 4 hybrid (its layers are mamba ones unless `layer_types` says "
      "otherwise) is not supported; the models of attention layers alone are");
}

}  // namespace

Result<ModelSpec> read_granite(ConfigReader& config) {
  SpecBuilder b(config, {});
  LORRY_TRY(b.status());
  LORRY_ASSIGN(const int rope, b.rope());
  double scale = 1, residual = 1;
  read_multipliers(config, b, scale, residual);
  const bool attention_bias = config.boolean("attention_bias", false);
  const bool mlp_bias = config.boolean("mlp_bias", false);
  for (int64_t i = 0; i < b.layers; ++i) {
    BlockSpec block;
    block.residual_scale = residual;
    block.before_attention = b.norm(i, "input_layernorm", b.hidden);
    AttentionSpec attention =
        b.attention(i, {.qkv_bias = attention_bias, .out_bias = attention_bias, .rope = rope});
    attention.scale = scale;
    block.attention = attention;
    block.before_mlp = b.norm(i, "post_attention_layernorm", b.hidden);
    block.mlp = b.mlp(i, "mlp", b.width, mlp_bias);
    b.spec.layers.push_back(std::move(block));
  }
  return b.finish();
}

Result<ModelSpec> read_granite_hybrid(ConfigReader& config) {
  SpecBuilder b(config, {});
  LORRY_TRY(b.status());
  LORRY_TRY(require_attention_layers(config, b.layers));
  config.require("num_local_experts", 0);
  const bool rotates = config.text("position_embedding_type", "") == "rope";
  int rope = -1;
  if (rotates) {
    LORRY_ASSIGN(rope, b.rope());
  }
  double scale = 1, residual = 1;
  read_multipliers(config, b, scale, residual);
  const bool bias = config.boolean("attention_bias", false);
  const int64_t width = config.positive("shared_intermediate_size", 1024);
  for (int64_t i = 0; i < b.layers; ++i) {
    BlockSpec block;
    block.residual_scale = residual;
    block.before_attention = b.norm(i, "input_layernorm", b.hidden);
    AttentionSpec attention = b.attention(i, {.qkv_bias = bias, .out_bias = bias, .rope = rope});
    attention.scale = scale;
    block.attention = attention;
    block.before_mlp = b.norm(i, "post_attention_layernorm", b.hidden);
    MlpSpec mlp{.width = width, .activation = b.activation};
    mlp.gate_up = b.linear(i, b.hidden, {{"shared_mlp.input_linear", 2 * width}});
    mlp.down = b.linear(i, width, {{"shared_mlp.output_linear", b.hidden}}, Shard::kColumns);
    block.mlp = mlp;
    b.spec.layers.push_back(std::move(block));
  }
  return b.finish();
}

}  // namespace lorry::model
