// What a checkpoint's config.json says, as plain typed fields.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace lorry::model {

/// Rotary embedding. Sources: Su et al. 2021, arXiv:2104.09864; `transformers`
/// modeling_rope_utils.py for the scaled forms.
struct RopeConfig {
  enum class Type { kDefault, kLinear, kLlama3, kYarn };
  Type type = Type::kDefault;
  double theta = 10000.0;
  double factor = 1.0;
  double low_freq_factor = 1.0;   ///< llama3
  double high_freq_factor = 4.0;  ///< llama3
  int64_t original_max_position_embeddings = 0;
  // yarn
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  std::optional<double> attention_factor;
  std::optional<double> mscale, mscale_all_dim;
  bool truncate = true;
};

/// A decoder-only transformer of the Llama kind; architectures differ by these fields alone.
struct ModelConfig {
  std::string architecture;  ///< "Qwen2ForCausalLM"
  std::string model_type;    ///< "qwen2"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  bool qkv_bias = false;  ///< Qwen2
  bool o_bias = false;    ///< Llama with attention_bias
  bool mlp_bias = false;
  bool qk_norm = false;  ///< Qwen3: RMSNorm over each head of q and k
  bool tie_word_embeddings = false;
  /// Attention window in tokens for each layer; 0 is unlimited. Size num_hidden_layers.
  std::vector<int64_t> sliding_window;
  RopeConfig rope;
  std::string dtype;  ///< "bfloat16", "float16", "float32", as the checkpoint is stored
  std::vector<int64_t> eos_token_ids;
};

/// Reads config.json of today's and of earlier `transformers`. An architecture or feature that is
/// not supported is refused by name. `generation_config` may be null; its eos_token_id adds to
/// config's.
Result<ModelConfig> parse_model_config(const Json& config, const Json& generation_config);

/// The architectures that parse_model_config accepts.
const std::vector<std::string>& supported_architectures();

}  // namespace lorry::model
