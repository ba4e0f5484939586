// What family files share: the sizes that nearly every config.json has, and weights under the names
// that nearly every checkpoint uses. A family departs from it where it departs from Llama.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/config_reader.h"
#include "model/spec.h"

namespace lorry::model {

/// What `transformers` assumes where config.json is silent.
struct Defaults {
  int64_t vocab_size = 0;  ///< 0: config.json must say
  int64_t heads = 0;       ///< 0: config.json must say
  int64_t kv_heads = 0;    ///< 0: as many as heads, which an explicit null always means
  int64_t head_dim = 0;    ///< 0: hidden_size / heads
  int64_t positions = 2048;
  double eps = 1e-6;
  double rope_theta = 10000;
  bool tie_word_embeddings = false;
  const char* activation = "silu";
  ops::RmsNormKind norm = ops::RmsNormKind::kPlain;
};

/// One module of a LinearSpec, by its name within the block.
struct ModuleOf {
  std::string name;  ///< "self_attn.q_proj"
  int64_t rows = 0;
  bool bias = false;
};

/// Weights are numbered in the order in which a family asks for them, which is that of the forward
/// pass.
class SpecBuilder {
 public:
  /// Reads the common sizes. `status` says whether they were right.
  SpecBuilder(ConfigReader& config, Defaults defaults);
  Result<> status() const { return config_.status(); }

  ModelSpec spec;
  int64_t layers = 0, hidden = 0, width = 0, heads = 0, kv_heads = 0, head_dim = 0;
  double eps = 0;
  ops::Activation activation;

  /// A weight outside the linear maps, under its full name. Its index.
  int tensor(std::string name, std::vector<int64_t> shape, int64_t layer = -1,
             bool is_buffer = false);
  /// A norm over `size` numbers, "{prefix of the layer}{name}.weight".
  NormSpec norm(int64_t layer, std::string_view name, int64_t size);
  /// Maps that share their input, under the layer's prefix.
  int linear(int64_t layer, int64_t in, const std::vector<ModuleOf>& modules,
             Shard shard = Shard::kRows);
  int add_linear(LinearSpec linear);
  /// The rope of config.json, once for a layer type. Its index.
  Result<int> rope(const char* layer_type = "");
  int add_rope(RopeSpec rope);

  struct AttentionOptions {
    bool qkv_bias = false, out_bias = false;
    int rope = 0;
    int64_t window = 0;
    enum class QkNorm { kNone, kEachHead, kAllHeads } qk_norm = QkNorm::kNone;
  };
  /// The sizes alone, for a family that names its own maps.
  AttentionSpec attention_sizes(const AttentionOptions& options) const;
  /// self_attn with q_proj, k_proj, v_proj and o_proj.
  AttentionSpec attention(int64_t layer, const AttentionOptions& options);
  /// gate_proj, up_proj and down_proj under `module` ("mlp").
  MlpSpec mlp(int64_t layer, std::string_view module, int64_t mlp_width, bool bias = false);
  /// So many MLPs of experts under `module` ("mlp.experts"), each with gate, up and down by
  /// `names`.
  std::vector<MlpSpec> experts(int64_t layer, std::string_view module, int64_t count,
                               int64_t expert_width,
                               std::array<const char*, 3> names = {"gate_proj", "up_proj",
                                                                   "down_proj"});

  /// Final norm, head, dtype, end tokens; then the whole is checked.
  Result<ModelSpec> finish();

  /// "model.layers.3."; "model." outside the blocks.
  static std::string prefix(int64_t layer);

 private:
  ConfigReader& config_;
  Defaults defaults_;
};

/// Windows where `layer_types` says which layers slide, else where `slides` does.
/// Sizes: layers; 0 where a layer sees all.
template <typename Slides>
std::vector<int64_t> windows_by_layer(ConfigReader& config, int64_t layers, int64_t window,
                                      Slides slides) {
  const auto types = config.layer_types(layers, {"full_attention", "sliding_attention"});
  std::vector<int64_t> windows(layers, 0);
  for (int64_t i = 0; i < layers; ++i) {
    const bool sliding = types.empty() ? slides(i) : types[i] == "sliding_attention";
    if (sliding) windows[i] = window;
  }
  return windows;
}

}  // namespace lorry::model
