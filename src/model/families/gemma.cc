// Gemma 2 and 3: a norm on either side of each half, weights that count from one, scaled
// embeddings, windows on most layers; Gemma 2 caps its scores and logits, Gemma 3 norms queries and
// keys.
#include <cmath>

#include "model/families/readers.h"
#include "model/spec_builder.h"

namespace lorry::model {
namespace {

using Attention = SpecBuilder::AttentionOptions;

Defaults gemma_defaults(int64_t positions) {
  return {.kv_heads = 4,
          .head_dim = 256,
          .positions = positions,
          .tie_word_embeddings = true,
          .activation = "gelu_pytorch_tanh",
          .norm = ops::RmsNormKind::kOnePlusWeight};
}

/// Rope of the sliding layers, then of the others; one rope for both in Gemma 2.
struct Ropes {
  int sliding = 0, full = 0;
};

/// rope_scaling is meant for the layers that see all; the sliding ones have a base of their own.
Result<Ropes> gemma3_ropes(ConfigReader& config, SpecBuilder& b) {
  const double local = config.number("rope_local_base_freq", 10000);
  const bool nested =
      config.has("rope_parameters") && config["rope_parameters"].contains("sliding_attention");
  Ropes ropes;
  if (nested) {
    LORRY_ASSIGN(ropes.sliding, b.rope("sliding_attention"));
  } else {
    ropes.sliding = b.add_rope({.dim = b.head_dim, .theta = local});
  }
  LORRY_ASSIGN(RopeSpec full, read_rope(config, b.head_dim, b.spec.max_position_embeddings, 1e6,
                                        "full_attention"));
  ropes.full = b.add_rope(std::move(full));
  return ropes;
}

/// Layer i slides unless it is the last of its group of `pattern`.
std::vector<int64_t> gemma_windows(ConfigReader& config, int64_t layers, int64_t pattern) {
  const int64_t window =
      config.is_null("sliding_window") ? 0 : config.positive("sliding_window", 4096);
  return windows_by_layer(config, layers, window,
                          [pattern](int64_t i) { return (i + 1) % pattern != 0; });
}

Result<ModelSpec> finish_gemma(ConfigReader& config, SpecBuilder& b, const Ropes& ropes,
                               const std::vector<int64_t>& windows, Attention attention,
                               double softcap) {
  config.require("use_bidirectional_attention", false);
  attention.qkv_bias = attention.out_bias = config.boolean("attention_bias", false);
  const double scale = 1 / std::sqrt(config.number("query_pre_attn_scalar", 256));
  b.spec.embedding_scale = std::sqrt(static_cast<double>(b.hidden));
  b.spec.logit_softcap = config.number("final_logit_softcapping", b.spec.logit_softcap);
  for (int64_t i = 0; i < b.layers; ++i) {
    BlockSpec block;
    block.before_attention = b.norm(i, "input_layernorm", b.hidden);
    attention.window = windows[i];
    attention.rope = windows[i] > 0 ? ropes.sliding : ropes.full;
    AttentionSpec spec = b.attention(i, attention);
    spec.scale = scale;
    spec.softcap = softcap;
    block.attention = spec;
    block.after_attention = b.norm(i, "post_attention_layernorm", b.hidden);
    block.before_mlp = b.norm(i, "pre_feedforward_layernorm", b.hidden);
    block.mlp = b.mlp(i, "mlp", b.width);
    block.after_mlp = b.norm(i, "post_feedforward_layernorm", b.hidden);
    b.spec.layers.push_back(std::move(block));
  }
  return b.finish();
}

/// A soft cap: silence means `fallback`, null none.
double read_softcap(ConfigReader& config, const char* name, double fallback) {
  return config.is_null(name) ? 0 : config.number(name, fallback);
}

}  // namespace

Result<ModelSpec> read_gemma2(ConfigReader& config) {
  SpecBuilder b(config, gemma_defaults(8192));
  LORRY_TRY(b.status());
  LORRY_ASSIGN(const int rope, b.rope());
  b.spec.logit_softcap = read_softcap(config, "final_logit_softcapping", 30);
  const double softcap = read_softcap(config, "attn_logit_softcapping", 50);
  return finish_gemma(config, b, {rope, rope}, gemma_windows(config, b.layers, 2), {}, softcap);
}

Result<ModelSpec> read_gemma3(ConfigReader& config) {
  Defaults defaults = gemma_defaults(131072);
  defaults.vocab_size = 262208;  // multimodal checkpoints leave out all that is a default
  defaults.heads = 8;
  SpecBuilder b(config, defaults);
  LORRY_TRY(b.status());
  LORRY_ASSIGN(const Ropes ropes, gemma3_ropes(config, b));
  const int64_t pattern =
      config.positive("sliding_window_pattern", config.positive("_sliding_window_pattern", 6));
  return finish_gemma(config, b, ropes, gemma_windows(config, b.layers, pattern),
                      {.qk_norm = Attention::QkNorm::kEachHead}, 0);
}

}  // namespace lorry::model
