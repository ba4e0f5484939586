#include "model/spec_builder.h"

#include <fmt/format.h>

#include <cmath>

namespace lorry::model {

namespace {

int64_t size_or(ConfigReader& config, const char* name, int64_t fallback) {
  return fallback > 0 ? config.positive(name, fallback) : config.size(name);
}

/// That every token finds as many experts as the router is to choose.
Result<> check_router(const MoeSpec& moe) {
  const auto count = static_cast<int64_t>(moe.experts.size());
  if (moe.active > count) {
    return invalid_input(fmt::format(
        "config.json: num_experts_per_tok {} is more than the {} experts", moe.active, count));
  }
  const int64_t groups = moe.router.groups, chosen = moe.router.chosen_groups;
  if (groups <= 1) return {};
  if (count % groups != 0 || count / groups < moe.router.group_top) {
    return invalid_input(
        fmt::format("config.json: {} experts do not come in n_group {} groups", count, groups));
  }
  if (chosen < 1 || chosen > groups || chosen * (count / groups) < moe.active) {
    return invalid_input(fmt::format(
        "config.json: topk_group {} of n_group {} does not leave num_experts_per_tok {} experts",
        chosen, groups, moe.active));
  }
  return {};
}

}  // namespace

SpecBuilder::SpecBuilder(ConfigReader& config, Defaults defaults)
    : config_(config), defaults_(defaults) {
  spec.vocab_size = size_or(config, "vocab_size", defaults.vocab_size);
  hidden = spec.hidden_size = config.size("hidden_size");
  width = config.size("intermediate_size");
  layers = config.count("num_hidden_layers");
  heads = size_or(config, "num_attention_heads", defaults.heads);
  const bool has_default = defaults.kv_heads > 0 && !config.is_null("num_key_value_heads");
  kv_heads = config.positive("num_key_value_heads", has_default ? defaults.kv_heads : heads);
  if (config.has("head_dim")) {
    head_dim = config.positive("head_dim", 1);
  } else if (defaults.head_dim > 0) {
    head_dim = defaults.head_dim;
  } else {
    if (hidden % heads != 0) {
      config.fail(invalid_input(
          fmt::format("config.json: hidden_size {} is not a multiple of num_attention_heads {}",
                      hidden, heads)));
    }
    head_dim = std::max<int64_t>(hidden / heads, 1);
  }
  if (heads % kv_heads != 0) {
    config.fail(
        invalid_input(fmt::format("config.json: num_attention_heads {} is not a multiple of "
                                  "num_key_value_heads {}",
                                  heads, kv_heads)));
  }
  spec.max_position_embeddings = config.positive("max_position_embeddings", defaults.positions);
  eps = config.number("rms_norm_eps", defaults.eps);
  spec.tie_word_embeddings = config.boolean("tie_word_embeddings", defaults.tie_word_embeddings);
  activation = read_activation(config, defaults.activation);
  spec.embed = tensor("model.embed_tokens.weight", {spec.vocab_size, hidden});
}

std::string SpecBuilder::prefix(int64_t layer) {
  return layer < 0 ? "model." : fmt::format("model.layers.{}.", layer);
}

int SpecBuilder::tensor(std::string name, std::vector<int64_t> shape, int64_t layer,
                        bool is_buffer) {
  spec.tensors.push_back({std::move(name), std::move(shape), layer, is_buffer});
  const int index = static_cast<int>(spec.tensors.size()) - 1;
  spec.order.push_back({false, index});
  return index;
}

NormSpec SpecBuilder::norm(int64_t layer, std::string_view name, int64_t size) {
  return {tensor(fmt::format("{}{}.weight", prefix(layer), name), {size}, layer), defaults_.norm,
          eps};
}

int SpecBuilder::linear(int64_t layer, int64_t in, const std::vector<ModuleOf>& modules,
                        Shard shard) {
  LinearSpec linear{layer, in, {}, shard};
  int64_t row = 0;
  for (const ModuleOf& of : modules) {
    Module module{prefix(layer) + of.name, row, of.rows};
    module.weight.name = module.name + ".weight";
    if (of.bias) module.bias.name = module.name + ".bias";
    linear.modules.push_back(std::move(module));
    row += of.rows;
  }
  return add_linear(std::move(linear));
}

int SpecBuilder::add_linear(LinearSpec linear) {
  spec.linears.push_back(std::move(linear));
  const int index = static_cast<int>(spec.linears.size()) - 1;
  spec.order.push_back({true, index});
  return index;
}

Result<int> SpecBuilder::rope(const char* layer_type) {
  LORRY_ASSIGN(RopeSpec rope, read_rope(config_, head_dim, spec.max_position_embeddings,
                                        defaults_.rope_theta, layer_type));
  return add_rope(std::move(rope));
}

int SpecBuilder::add_rope(RopeSpec rope) {
  spec.ropes.push_back(std::move(rope));
  return static_cast<int>(spec.ropes.size()) - 1;
}

AttentionSpec SpecBuilder::attention_sizes(const AttentionOptions& options) const {
  AttentionSpec attention;
  attention.heads = heads;
  attention.kv_heads = kv_heads;
  attention.head_dim = head_dim;
  attention.scale = 1 / std::sqrt(static_cast<double>(head_dim));
  attention.window = options.window;
  attention.rope = options.rope;
  return attention;
}

AttentionSpec SpecBuilder::attention(int64_t layer, const AttentionOptions& options) {
  AttentionSpec attention = attention_sizes(options);
  const int64_t q = heads * head_dim, kv = kv_heads * head_dim;
  attention.qkv = linear(layer, hidden,
                         {{"self_attn.q_proj", q, options.qkv_bias},
                          {"self_attn.k_proj", kv, options.qkv_bias},
                          {"self_attn.v_proj", kv, options.qkv_bias}});
  attention.out =
      linear(layer, q, {{"self_attn.o_proj", hidden, options.out_bias}}, Shard::kColumns);
  if (options.qk_norm == AttentionOptions::QkNorm::kNone) return attention;
  attention.norm_over_heads = options.qk_norm == AttentionOptions::QkNorm::kAllHeads;
  attention.q_norm = norm(layer, "self_attn.q_norm", attention.norm_over_heads ? q : head_dim);
  attention.k_norm = norm(layer, "self_attn.k_norm", attention.norm_over_heads ? kv : head_dim);
  return attention;
}

MlpSpec SpecBuilder::mlp(int64_t layer, std::string_view module, int64_t mlp_width, bool bias) {
  const auto name = [&](const char* part) { return fmt::format("{}.{}", module, part); };
  MlpSpec mlp;
  mlp.width = mlp_width;
  mlp.activation = activation;
  mlp.gate_up = linear(layer, hidden,
                       {{name("gate_proj"), mlp_width, bias}, {name("up_proj"), mlp_width, bias}});
  mlp.down = linear(layer, mlp_width, {{name("down_proj"), hidden, bias}}, Shard::kColumns);
  return mlp;
}

std::vector<MlpSpec> SpecBuilder::experts(int64_t layer, std::string_view module, int64_t count,
                                          int64_t expert_width, std::array<const char*, 3> names) {
  std::vector<MlpSpec> list;
  for (int64_t e = 0; e < count; ++e) {
    const auto name = [&](int part) { return fmt::format("{}.{}.{}", module, e, names[part]); };
    MlpSpec mlp;
    mlp.width = expert_width;
    mlp.activation = activation;
    mlp.gate_up = linear(layer, hidden, {{name(0), expert_width}, {name(1), expert_width}});
    mlp.down = linear(layer, expert_width, {{name(2), hidden}}, Shard::kColumns);
    for (const int map : {mlp.gate_up, mlp.down}) {
      for (Module& m : spec.linears[map].modules) m.expert = e;
    }
    list.push_back(mlp);
  }
  return list;
}

Result<ModelSpec> SpecBuilder::finish() {
  spec.final_norm = norm(-1, "norm", hidden);
  spec.head =
      spec.tie_word_embeddings ? spec.embed : tensor("lm_head.weight", {spec.vocab_size, hidden});
  for (const BlockSpec& block : spec.layers) {
    if (const auto* moe = std::get_if<MoeSpec>(&block.mlp)) LORRY_TRY(check_router(*moe));
  }
  LORRY_ASSIGN(spec.dtype, read_dtype(config_));
  LORRY_TRY(add_eos(config_.json(), "config.json", spec.eos_token_ids));
  const int64_t pad = config_.integer("pad_token_id", -1);
  if (pad >= 0 && pad < spec.vocab_size) spec.pad_token_id = pad;
  LORRY_TRY(config_.status());
  return std::move(spec);
}

std::string weight_name(const Module& module) {
  return module.weight.index < 0 ? module.weight.name : module.name + ".weight";
}

std::string bias_name(const Module& module) {
  return module.bias.index < 0 ? module.bias.name : module.name + ".bias";
}

std::vector<LayerCache> ModelSpec::cache_layout() const {
  std::vector<LayerCache> layout;
  for (const BlockSpec& block : layers) {
    if (const auto* mla = std::get_if<MlaSpec>(&block.attention)) {
      layout.push_back({mla->heads, mla->nope_dim + mla->rope_dim, mla->value_dim});
    } else {
      const auto& attention = std::get<AttentionSpec>(block.attention);
      layout.push_back({attention.kv_heads, attention.head_dim, attention.head_dim});
    }
  }
  return layout;
}

std::vector<int64_t> ModelSpec::windows() const {
  std::vector<int64_t> windows;
  for (const BlockSpec& block : layers) {
    const auto* attention = std::get_if<AttentionSpec>(&block.attention);
    windows.push_back(attention ? attention->window : 0);
  }
  return windows;
}

}  // namespace lorry::model
