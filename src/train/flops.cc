#include "train/flops.h"

#include <algorithm>
#include <utility>

namespace lorry::train {
namespace {

/// Width of the queries' heads and of the values', which an attended key costs.
double attention_width(const model::BlockSpec& block) {
  if (const auto* mla = std::get_if<model::MlaSpec>(&block.attention)) {
    const int64_t per_head = mla->nope_dim + mla->rope_dim + mla->value_dim;
    return static_cast<double>(mla->heads * per_head) / 2;
  }
  const auto& attention = std::get<model::AttentionSpec>(block.attention);
  return static_cast<double>(attention.heads * attention.head_dim);
}

/// Which part of a layer's experts a token goes through; 1 where there are none.
double active_share(const model::ModelSpec& spec, const model::LinearSpec& linear) {
  if (linear.modules[0].expert < 0 || linear.layer < 0) return 1;
  const auto* moe = std::get_if<model::MoeSpec>(&spec.layers[linear.layer].mlp);
  return moe ? static_cast<double>(moe->active) / static_cast<double>(moe->experts.size()) : 1;
}

/// None where the configuration matches nothing, which is refused elsewhere.
std::vector<model::ModuleIndex> selected_modules(const model::ModelSpec& spec,
                                                 const model::LoraConfig& lora) {
  auto selected = model::select_modules(spec, lora);
  return selected.ok() ? std::move(*selected) : std::vector<model::ModuleIndex>();
}

/// Of the pairs A and B alone.
int64_t low_rank_parameters(const model::ModelSpec& spec, const model::LoraConfig& lora,
                            const std::vector<model::ModuleIndex>& selected) {
  int64_t parameters = 0;
  for (const auto& [l, m] : selected) {
    const model::Module& module = spec.linears[l].modules[m];
    parameters += lora.rank_of(module.name) * (spec.linears[l].in + module.rows);
  }
  return parameters;
}

}  // namespace

double attended_keys(const model::ModelSpec& spec, int64_t length) {
  const auto keys = [length](int64_t window) {
    const double n = static_cast<double>(window > 0 ? std::min(window, length) : length);
    return n * (n + 1) / 2 + (static_cast<double>(length) - n) * n;
  };
  double all = 0;
  for (const int64_t window : spec.windows()) all += keys(window);
  return all;
}

int64_t lora_parameters(const model::ModelSpec& spec, const model::LoraConfig& lora) {
  const auto selected = selected_modules(spec, lora);
  int64_t parameters = low_rank_parameters(spec, lora, selected);
  for (const auto& [l, m] : selected) {
    const model::Module& module = spec.linears[l].modules[m];
    if (lora.use_dora) parameters += module.rows;
    if (lora.bias == "lora_only" && !module.bias.name.empty()) parameters += module.rows;
  }
  if (lora.bias == "all") {
    for (const model::LinearSpec& linear : spec.linears) {
      for (const model::Module& module : linear.modules) {
        if (!module.bias.name.empty()) parameters += module.rows;
      }
    }
  }
  const auto saved = static_cast<int64_t>(lora.modules_to_save.size());
  return parameters + saved * spec.vocab_size * spec.hidden_size;
}

double training_flops(const model::ModelSpec& spec, const std::optional<model::LoraConfig>& lora,
                      const RunWork& work) {
  double blocks = 0;  // numbers in the matrices that a token goes through
  for (const model::LinearSpec& linear : spec.linears) {
    blocks += static_cast<double>(linear.in) * static_cast<double>(linear.out()) *
              active_share(spec, linear);
  }
  const double per_weight = lora ? 4 : 6;
  const double head = static_cast<double>(spec.hidden_size) * static_cast<double>(spec.vocab_size);
  double width = 0;  // mean over the layers, since `attended` is their sum
  for (const auto& block : spec.layers) width += attention_width(block);
  width /= std::max<double>(1, static_cast<double>(spec.layers.size()));
  double flops = per_weight * (blocks * work.tokens + head * work.targets);
  flops += 12 * width * work.attended;
  if (lora)
    flops += 6 *
             static_cast<double>(low_rank_parameters(spec, *lora, selected_modules(spec, *lora))) *
             work.tokens;
  return flops;
}

}  // namespace lorry::train
