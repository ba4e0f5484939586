// A model as data: what a family file makes of a config.json and what the one block interprets.
//
// Nothing here is a tensor. Sizes are numbers, weights are indices into two lists: `tensors`
// (norms, embeddings, routers, sinks) and `linears` (all maps that adapters, quantising and
// sharding see). Loading, checking, adapters, merging, FLOPs and `plan` walk these lists; nothing
// else enumerates weights.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ops/gate.h"
#include "ops/rms_norm.h"

namespace lorry::model {

/// Rotary embedding. Sources: Su et al. 2021, arXiv:2104.09864; `transformers`
/// modeling_rope_utils.py for the scaled forms.
struct RopeSpec {
  enum class Type { kDefault, kLinear, kLlama3, kYarn, kLongRope };
  Type type = Type::kDefault;
  int64_t dim = 0;  ///< numbers of a head that turn, from its first on; even
  double theta = 10000.0;
  double factor = 1.0;
  int64_t original_max_position_embeddings = 0;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  ///< llama3
  double beta_fast = 32.0, beta_slow = 1.0;              ///< yarn
  std::optional<double> attention_factor;                ///< yarn, longrope: on cos and sin
  std::optional<double> mscale, mscale_all_dim;          ///< yarn
  bool truncate = true;                                  ///< yarn
  /// longrope: divisors of each frequency, for sequences up to original_max_position_embeddings and
  /// beyond. (dim / 2) each.
  std::vector<double> short_factor, long_factor;
  /// Ministral 3: queries at place p are multiplied by
  /// 1 + beta ln(1 + floor(p / original_max_position_embeddings)).
  double query_scale_beta = 0;
  bool operator==(const RopeSpec&) const = default;
};

/// Where the rows of a module, or a tensor, lie in a checkpoint.
struct StoredAt {
  std::string name;             ///< of the tensor, with ".weight"
  int64_t index = -1;           ///< into its first dimension (stacked experts); -1: the whole
  bool transposed = false;      ///< stored (in, out)
  int64_t first = 0, step = 1;  ///< rows first, first + step, ... (interleaved gate and up)
};

/// One named map: what `peft` calls a module.
struct Module {
  std::string name;                 ///< "model.layers.3.self_attn.q_proj"
  int64_t first_row = 0, rows = 0;  ///< of the LinearSpec's output
  int64_t expert = -1;              ///< which expert it belongs to; -1: none
  StoredAt weight;
  StoredAt bias;  ///< name "" where it has none
};

/// The canonical name of a module's matrix: the checkpoint's, or for a part of a stacked tensor the
/// module's own.
std::string weight_name(const Module& module);
std::string bias_name(const Module& module);

/// How tensor parallelism may cut a map.
enum class Shard { kNone, kRows, kColumns };

/// Linear maps that share their input: q, k and v; gate and up; or one alone.
struct LinearSpec {
  int64_t layer = -1;  ///< -1: outside the blocks
  int64_t in = 0;
  std::vector<Module> modules;
  Shard shard = Shard::kNone;

  int64_t out() const { return modules.back().first_row + modules.back().rows; }
};

/// A weight that is no linear map. The first name that a checkpoint holds is taken.
struct TensorSpec {
  std::string name;  ///< "model.layers.3.input_layernorm.weight"
  std::vector<int64_t> shape;
  int64_t layer = -1;
  bool is_buffer = false;  ///< kept in float32, never trained (a router's correction)
};

struct NormSpec {
  int tensor = -1;  ///< index into ModelSpec::tensors; -1: there is no norm here
  ops::RmsNormKind kind = ops::RmsNormKind::kPlain;
  double eps = 1e-6;
};

/// Multi-head attention with grouped keys and values. H heads, K kv_heads, D head_dim.
struct AttentionSpec {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  double scale = 0;              ///< on q k^T
  double softcap = 0;            ///< 0: none
  int64_t window = 0;            ///< tokens that a query sees, itself included; 0: all
  int rope = -1;                 ///< index into ModelSpec::ropes; -1: none
  NormSpec q_norm, k_norm;       ///< before rotation
  bool norm_over_heads = false;  ///< q_norm and k_norm over all heads at once (OLMo 2)
  int sinks = -1;                ///< tensor (H)
  int qkv = -1, out = -1;        ///< linears
};

/// Multi-head latent attention: keys and values come from a vector of kv_rank numbers, and one
/// rotated key of rope_dim numbers is shared by all heads.
/// Source: DeepSeek-AI 2024, arXiv:2405.04434, section 2.1.
struct MlaSpec {
  int64_t heads = 0, kv_rank = 0, nope_dim = 0, rope_dim = 0, value_dim = 0;
  double scale = 0;
  int rope = 0;
  bool interleaved = true;   ///< pairs (2i, 2i + 1) turn, not (i, i + rope_dim / 2)
  int q_down = -1;           ///< linear to the query's own latent vector; -1: q is made at once
  NormSpec q_norm, kv_norm;  ///< on the latent vectors
  int q = -1, kv_down = -1, kv_up = -1, out = -1;  ///< linears
};

/// down(act(gate(x)) * up(x)).
struct MlpSpec {
  int gate_up = -1, down = -1;  ///< linears
  int64_t width = 0;
  ops::Activation activation;
};

/// Which experts a token goes to, and with which weights.
struct RouterSpec {
  enum class Scores { kSoftmax, kSigmoid, kSoftmaxOfChosen };
  int weight = -1;      ///< tensor (experts, hidden)
  int bias = -1;        ///< tensor (experts), added to the logits (GPT-OSS)
  int correction = -1;  ///< tensor (experts), added to the scores for choosing alone (DeepSeek-V3)
  Scores scores = Scores::kSoftmax;
  bool renormalize = false;  ///< the chosen weights are divided by their sum
  double scale = 1;          ///< on the weights
  bool is_float32 = false;   ///< logits are computed in float32
  /// Experts come in `groups`; only those of the `chosen_groups` best are eligible. 0: all are.
  int64_t groups = 0, chosen_groups = 0;
  int64_t group_top = 1;  ///< a group's score is the sum of its so many best
};

/// A sum over `active` experts a token, and of what all tokens share.
struct MoeSpec {
  int64_t active = 0;
  RouterSpec router;
  std::vector<MlpSpec> experts;
  std::optional<MlpSpec> shared;
  int shared_gate = -1;  ///< linear (1, hidden) whose sigmoid weighs the shared part (Qwen2-MoE)
};

/// x += residual_scale * after_attention(attention(before_attention(x))), then the same with the
/// MLP.
struct BlockSpec {
  NormSpec before_attention, after_attention, before_mlp, after_mlp;
  std::variant<AttentionSpec, MlaSpec> attention;
  std::variant<MlpSpec, MoeSpec> mlp;
  double residual_scale = 1;
};

/// An entry of ModelSpec::tensors, or of ModelSpec::linears.
struct WeightRef {
  bool is_linear = false;
  int index = 0;
};

/// Keys and values that one token leaves in a cache, by layer.
struct LayerCache {
  int64_t kv_heads = 0, key_dim = 0, value_dim = 0;
  bool operator==(const LayerCache&) const = default;
};

struct ModelSpec {
  std::string architecture;  ///< "Qwen2ForCausalLM"
  std::string model_type;    ///< "qwen2"
  int64_t vocab_size = 0, hidden_size = 0;
  /// Tokens that the model is made for; 0: not said. With YaRN those it was scaled to, whatever
  /// `max_position_embeddings` says.
  int64_t max_position_embeddings = 0;
  /// Tokens that its positions reach if asked for: more than that where they were scaled linearly
  /// and the config names the length before that, as `transformers` asks for.
  int64_t longest_context = 0;
  /// What `peft` finds before "layers.0" and "embed_tokens": a multimodal class puts its own there.
  std::string module_prefix = "model.";
  std::string dtype;  ///< "bfloat16", "float16", "float32", as the checkpoint is stored
  std::vector<int64_t> eos_token_ids;

  bool tie_word_embeddings = false;
  int64_t pad_token_id = -1;   ///< whose embedding gets no gradient, as in `transformers`; -1: none
  double embedding_scale = 1;  ///< rounded to the model's dtype before it is used (Gemma)
  double logit_scale = 1;      ///< on the head's output (Granite)
  double logit_softcap = 0;    ///< c: c tanh(logit / c) (Gemma 2); 0: none
  int embed = -1, head = -1;   ///< tensors; head is embed where they are tied
  NormSpec final_norm;
  std::vector<RopeSpec> ropes;
  std::vector<BlockSpec> layers;
  std::vector<TensorSpec> tensors;
  std::vector<LinearSpec> linears;
  std::vector<WeightRef> order;  ///< both lists, in the order of the forward pass

  int64_t num_hidden_layers() const { return static_cast<int64_t>(layers.size()); }
  std::vector<LayerCache> cache_layout() const;
  /// Tokens back that each layer sees; 0: all.
  std::vector<int64_t> windows() const;
};

}  // namespace lorry::model
