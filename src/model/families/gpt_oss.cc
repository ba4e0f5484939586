// GPT-OSS: sinks in the softmax, experts with biases in stacked tensors (bf16, or MXFP4 as OpenAI
// publishes them), a gate that is cut off.
#include <fmt/format.h>

#include "model/families/readers.h"
#include "model/spec_builder.h"

namespace lorry::model {
namespace {

/// Where an expert's rows lie: stacked by expert, stored (in, out), gate and up in turns.
StoredAt stacked(const std::string& tensor, int64_t expert, int64_t first, int64_t step) {
  return {tensor, expert, /*transposed=*/true, first, step};
}

MlpSpec read_expert(SpecBuilder& b, int64_t layer, int64_t expert,
                    const ops::Activation& activation) {
  const std::string stem = b.prefix(layer) + "mlp.experts.";
  const auto module = [&](const char* name, const char* tensor, int64_t rows, int64_t first_row,
                          int64_t first, int64_t step) {
    Module m{fmt::format("{}{}.{}", stem, expert, name), first_row, rows, expert};
    m.weight = stacked(stem + tensor, expert, first, step);
    m.bias = {stem + tensor + "_bias", expert, false, first, step};
    return m;
  };
  MlpSpec mlp{.width = b.width, .activation = activation};
  mlp.gate_up = b.add_linear({layer,
                              b.hidden,
                              {module("gate_proj", "gate_up_proj", b.width, 0, 0, 2),
                               module("up_proj", "gate_up_proj", b.width, b.width, 1, 2)},
                              Shard::kRows});
  mlp.down = b.add_linear(
      {layer, b.width, {module("down_proj", "down_proj", b.hidden, 0, 0, 1)}, Shard::kColumns});
  return mlp;
}

/// What the configuration means where it says nothing of rope.
Result<int> gpt_oss_rope(ConfigReader& config, SpecBuilder& b) {
  if (config.has("rope_parameters") || config.has("rope_scaling")) return b.rope();
  RopeSpec rope{.type = RopeSpec::Type::kYarn, .dim = b.head_dim, .theta = 150000, .factor = 32};
  rope.original_max_position_embeddings = 4096;
  rope.truncate = false;
  return b.add_rope(std::move(rope));
}

}  // namespace

Result<ModelSpec> read_gpt_oss(ConfigReader& config) {
  SpecBuilder b(config, {.kv_heads = 8,
                         .head_dim = 64,
                         .positions = 131072,
                         .eps = 1e-5,
                         .rope_theta = 150000,
                         .norm = ops::RmsNormKind::kWideWeight});
  LORRY_TRY(b.status());
  LORRY_ASSIGN(const int rope, gpt_oss_rope(config, b));
  const bool bias = config.boolean("attention_bias", true);
  const char* field = config.has("num_experts") ? "num_experts" : "num_local_experts";
  const int64_t count = config.count(field, 128);
  const ops::Activation activation{ops::Activation::Kind::kClampedSilu,
                                   config.number("swiglu_alpha", 1.702),
                                   config.number("swiglu_limit", 7)};
  const auto windows = windows_by_layer(config, b.layers, config.positive("sliding_window", 128),
                                        [](int64_t i) { return i % 2 == 0; });
  for (int64_t i = 0; i < b.layers; ++i) {
    BlockSpec block;
    block.before_attention = b.norm(i, "input_layernorm", b.hidden);
    AttentionSpec attention =
        b.attention(i, {.qkv_bias = bias, .out_bias = bias, .rope = rope, .window = windows[i]});
    attention.sinks = b.tensor(b.prefix(i) + "self_attn.sinks", {b.heads}, i);
    block.attention = attention;
    block.before_mlp = b.norm(i, "post_attention_layernorm", b.hidden);
    MoeSpec moe;
    moe.active = config.positive("num_experts_per_tok", 4);
    moe.router.weight = b.tensor(b.prefix(i) + "mlp.router.weight", {count, b.hidden}, i);
    moe.router.bias = b.tensor(b.prefix(i) + "mlp.router.bias", {count}, i);
    moe.router.scores = RouterSpec::Scores::kSoftmaxOfChosen;
    for (int64_t e = 0; e < count; ++e) moe.experts.push_back(read_expert(b, i, e, activation));
    block.mlp = std::move(moe);
    b.spec.layers.push_back(std::move(block));
  }
  return b.finish();
}

}  // namespace lorry::model
