// Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: q, k and v are one matrix, gate and up another; frequencies
// stretched one by one for long contexts.
#include "model/families/readers.h"
#include "model/spec_builder.h"

namespace lorry::model {

Result<ModelSpec> read_phi3(ConfigReader& config) {
  SpecBuilder b(config, {.positions = 4096, .eps = 1e-5});
  LORRY_TRY(b.status());
  LORRY_ASSIGN(RopeSpec rope, read_rope(config, b.head_dim, b.spec.max_position_embeddings, 1e4));
  if (rope.type == RopeSpec::Type::kYarn) {
    return unsupported("config.json: a Phi-3 model with rope type yarn is not supported");
  }
  b.add_rope(std::move(rope));
  const int64_t window = config.has("sliding_window") ? config.positive("sliding_window", 4096) : 0;
  const int64_t q = b.heads * b.head_dim, kv = b.kv_heads * b.head_dim;
  for (int64_t i = 0; i < b.layers; ++i) {
    BlockSpec block;
    block.before_attention = b.norm(i, "input_layernorm", b.hidden);
    AttentionSpec attention = b.attention_sizes({.window = window});
    attention.qkv = b.linear(i, b.hidden, {{"self_attn.qkv_proj", q + 2 * kv}});
    attention.out = b.linear(i, q, {{"self_attn.o_proj", b.hidden}}, Shard::kColumns);
    block.attention = attention;
    block.before_mlp = b.norm(i, "post_attention_layernorm", b.hidden);
    MlpSpec mlp{.width = b.width, .activation = b.activation};
    mlp.gate_up = b.linear(i, b.hidden, {{"mlp.gate_up_proj", 2 * b.width}});
    mlp.down = b.linear(i, b.width, {{"mlp.down_proj", b.hidden}}, Shard::kColumns);
    block.mlp = mlp;
    b.spec.layers.push_back(std::move(block));
  }
  return b.finish();
}

}  // namespace lorry::model
