// DeepSeek-V2, V3 and R1: latent attention, routed experts beside shared ones.
#include <cmath>

#include "model/families/readers.h"
#include "model/spec_builder.h"

namespace lorry::model {
namespace {

struct DeepSeek {
  int64_t dense_layers = 0, count = 0, active = 0, width = 0, shared = 0;
  bool attention_bias = false, mlp_bias = false, interleaved = true;
  RouterSpec router;
  bool has_correction = false;
};

/// YaRN's second factor, which these models put on the scores, squared.
double yarn_scale(const RopeSpec& rope) {
  const double mscale = rope.mscale_all_dim.value_or(0);
  if (rope.type == RopeSpec::Type::kDefault || mscale == 0 || rope.factor <= 1) return 1;
  const double scale = 0.1 * mscale * std::log(rope.factor) + 1;
  return scale * scale;
}

MlaSpec read_attention(ConfigReader& config, SpecBuilder& b, int64_t layer, const DeepSeek& d) {
  constexpr double kLatentEps = 1e-6;  // whatever rms_norm_eps says
  MlaSpec mla;
  mla.heads = b.heads;
  mla.kv_rank = config.positive("kv_lora_rank", 512);
  mla.nope_dim = config.positive("qk_nope_head_dim", 128);
  mla.rope_dim = config.positive("qk_rope_head_dim", 64);
  mla.value_dim = config.positive("v_head_dim", 128);
  mla.scale =
      yarn_scale(b.spec.ropes[0]) / std::sqrt(static_cast<double>(mla.nope_dim + mla.rope_dim));
  mla.interleaved = d.interleaved;
  const int64_t q_rows = mla.heads * (mla.nope_dim + mla.rope_dim);
  if (config.is_null("q_lora_rank")) {
    mla.q = b.linear(layer, b.hidden, {{"self_attn.q_proj", q_rows}});
  } else {
    const int64_t rank = config.positive("q_lora_rank", 1536);
    mla.q_down =
        b.linear(layer, b.hidden, {{"self_attn.q_a_proj", rank, d.attention_bias}}, Shard::kNone);
    mla.q_norm = b.norm(layer, "self_attn.q_a_layernorm", rank);
    mla.q_norm.eps = kLatentEps;
    mla.q = b.linear(layer, rank, {{"self_attn.q_b_proj", q_rows}});
  }
  mla.kv_down =
      b.linear(layer, b.hidden,
               {{"self_attn.kv_a_proj_with_mqa", mla.kv_rank + mla.rope_dim, d.attention_bias}},
               Shard::kNone);
  mla.kv_norm = b.norm(layer, "self_attn.kv_a_layernorm", mla.kv_rank);
  mla.kv_norm.eps = kLatentEps;
  mla.kv_up = b.linear(layer, mla.kv_rank,
                       {{"self_attn.kv_b_proj", mla.heads * (mla.nope_dim + mla.value_dim)}});
  mla.out = b.linear(layer, mla.heads * mla.value_dim,
                     {{"self_attn.o_proj", b.hidden, d.attention_bias}}, Shard::kColumns);
  return mla;
}

MoeSpec read_experts(SpecBuilder& b, int64_t layer, const DeepSeek& d) {
  MoeSpec moe;
  moe.active = d.active;
  moe.router = d.router;
  moe.router.weight = b.tensor(b.prefix(layer) + "mlp.gate.weight", {d.count, b.hidden}, layer);
  if (d.has_correction) {
    moe.router.correction = b.tensor(b.prefix(layer) + "mlp.gate.e_score_correction_bias",
                                     {d.count}, layer, /*is_buffer=*/true);
  }
  moe.experts = b.experts(layer, "mlp.experts", d.count, d.width);
  if (d.shared > 0) moe.shared = b.mlp(layer, "mlp.shared_experts", d.width * d.shared, d.mlp_bias);
  return moe;
}

Result<ModelSpec> finish_deepseek(ConfigReader& config, SpecBuilder& b, DeepSeek& d) {
  LORRY_ASSIGN(RopeSpec rope, read_rope(config, config.positive("qk_rope_head_dim", 64),
                                        b.spec.max_position_embeddings, 10000));
  b.add_rope(std::move(rope));
  d.attention_bias = config.boolean("attention_bias", false);
  d.mlp_bias = config.boolean("mlp_bias", false);
  d.router.is_float32 = true;
  for (int64_t i = 0; i < b.layers; ++i) {
    BlockSpec block;
    block.before_attention = b.norm(i, "input_layernorm", b.hidden);
    block.attention = read_attention(config, b, i, d);
    block.before_mlp = b.norm(i, "post_attention_layernorm", b.hidden);
    if (i < d.dense_layers) {
      block.mlp = b.mlp(i, "mlp", b.width, d.mlp_bias);
    } else {
      block.mlp = read_experts(b, i, d);
    }
    b.spec.layers.push_back(std::move(block));
  }
  return b.finish();
}

/// Groups only count where there are several and some are left out.
void read_groups(ConfigReader& config, RouterSpec& router, int64_t groups, int64_t chosen) {
  router.groups = config.integer("n_group", groups);
  router.chosen_groups = config.integer("topk_group", chosen);
}

}  // namespace

Result<ModelSpec> read_deepseek_v2(ConfigReader& config) {
  SpecBuilder b(config, {});
  LORRY_TRY(b.status());
  DeepSeek d;
  d.dense_layers = config.integer("first_k_dense_replace", 0);
  d.count = config.count("n_routed_experts", 64);
  d.active = config.size("num_experts_per_tok");
  d.width = config.positive("moe_intermediate_size", 1407);
  d.shared = config.integer("n_shared_experts", 2);
  d.router.scale = config.number("routed_scaling_factor", 1);
  const std::string method = config.text("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    read_groups(config, d.router, 1, 1);
  } else if (method != "greedy") {
    return unsupported("config.json: topk_method " + method +
                       " is not supported; greedy and group_limited_greedy are");
  }
  return finish_deepseek(config, b, d);
}

Result<ModelSpec> read_deepseek_v3(ConfigReader& config) {
  SpecBuilder b(config, {.positions = 4096});
  LORRY_TRY(b.status());
  DeepSeek d;
  d.dense_layers = config.integer("first_k_dense_replace", 3);
  d.count =
      config.count(config.has("num_local_experts") ? "num_local_experts" : "n_routed_experts", 256);
  d.active = config.positive("num_experts_per_tok", 8);
  d.width = config.positive("moe_intermediate_size", 2048);
  d.shared = config.integer("n_shared_experts", 1);
  d.interleaved = config.boolean("rope_interleave", true);
  d.has_correction = true;
  d.router.scores = RouterSpec::Scores::kSigmoid;
  d.router.renormalize = config.boolean("norm_topk_prob", true);
  d.router.scale = config.number("routed_scaling_factor", 2.5);
  d.router.group_top = 2;
  read_groups(config, d.router, 8, 4);
  return finish_deepseek(config, b, d);
}

}  // namespace lorry::model
