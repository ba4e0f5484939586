#include "train/flops.h"

#include <algorithm>

namespace lorry::train {

double attended_keys(const model::ModelConfig& config, int64_t length) {
  const auto keys = [length](int64_t window) {
    const double n = static_cast<double>(window > 0 ? std::min(window, length) : length);
    return n * (n + 1) / 2 + (static_cast<double>(length) - n) * n;
  };
  double all = 0;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    all += keys(static_cast<size_t>(layer) < config.sliding_window.size()
                    ? config.sliding_window[static_cast<size_t>(layer)]
                    : 0);
  return all;
}

int64_t lora_parameters(const model::ModelConfig& config, const model::LoraConfig& lora) {
  int64_t per_layer = 0;
  for (const auto projection : lora.targets) {
    const auto [in, out] = model::projection_shape(config, projection);
    per_layer += lora.r * (in + out);
  }
  return per_layer * config.num_hidden_layers;
}

double training_flops(const model::ModelConfig& config,
                      const std::optional<model::LoraConfig>& lora, const RunWork& work) {
  double block = 0;  // numbers in the matrices of a block
  for (const auto projection : model::kProjections) {
    const auto [in, out] = model::projection_shape(config, projection);
    block += static_cast<double>(in) * static_cast<double>(out);
  }
  const double per_weight = lora ? 4 : 6;
  const double blocks = block * static_cast<double>(config.num_hidden_layers);
  const double head =
      static_cast<double>(config.hidden_size) * static_cast<double>(config.vocab_size);
  const auto width = static_cast<double>(config.num_attention_heads * config.head_dim);
  double flops = per_weight * (blocks * work.tokens + head * work.targets);
  flops += 12 * width * work.attended;
  if (lora) flops += 6 * static_cast<double>(lora_parameters(config, *lora)) * work.tokens;
  return flops;
}

}  // namespace lorry::train
