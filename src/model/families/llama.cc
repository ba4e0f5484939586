// Llama 2 to 3.x, and the many models of the same shape (SmolLM2, Yi, DeepSeek-LLM).
#include "model/families/readers.h"
#include "model/spec_builder.h"

namespace lorry::model {

Result<ModelSpec> read_llama(ConfigReader& config) {
  SpecBuilder b(config, {});
  LORRY_TRY(b.status());
  LORRY_ASSIGN(const int rope, b.rope());
  const bool attention_bias = config.boolean("attention_bias", false);
  const bool mlp_bias = config.boolean("mlp_bias", false);
  for (int64_t i = 0; i < b.layers; ++i) {
    BlockSpec block;
    block.before_attention = b.norm(i, "input_layernorm", b.hidden);
    block.attention =
        b.attention(i, {.qkv_bias = attention_bias, .out_bias = attention_bias, .rope = rope});
    block.before_mlp = b.norm(i, "post_attention_layernorm", b.hidden);
    block.mlp = b.mlp(i, "mlp", b.width, mlp_bias);
    b.spec.layers.push_back(std::move(block));
  }
  return b.finish();
}

}  // namespace lorry::model
