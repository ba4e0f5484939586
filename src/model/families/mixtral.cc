// Mixtral: Mistral's attention, eight experts of which two answer.
#include "model/families/readers.h"
#include "model/spec_builder.h"

namespace lorry::model {

Result<ModelSpec> read_mixtral(ConfigReader& config) {
  SpecBuilder b(config, {.kv_heads = 8, .positions = 131072, .eps = 1e-5, .rope_theta = 1e6});
  LORRY_TRY(b.status());
  LORRY_ASSIGN(const int rope, b.rope());
  const int64_t window = config.has("sliding_window") ? config.positive("sliding_window", 4096) : 0;
  const int64_t count = config.count("num_local_experts", 8);
  const int64_t active = config.positive("num_experts_per_tok", 2);
  for (int64_t i = 0; i < b.layers; ++i) {
    BlockSpec block;
    block.before_attention = b.norm(i, "input_layernorm", b.hidden);
    block.attention = b.attention(i, {.rope = rope, .window = window});
    block.before_mlp = b.norm(i, "post_attention_layernorm", b.hidden);
    MoeSpec moe;
    moe.active = active;
    moe.router.weight =
        b.tensor(b.prefix(i) + "block_sparse_moe.gate.weight", {count, b.hidden}, i);
    moe.router.renormalize = true;
    moe.experts = b.experts(i, "block_sparse_moe.experts", count, b.width, {"w1", "w3", "w2"});
    block.mlp = std::move(moe);
    b.spec.layers.push_back(std::move(block));
  }
  return b.finish();
}

}  // namespace lorry::model
