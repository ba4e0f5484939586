#include "model/lora_products.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace lorry::model {
namespace {

/// Whether ops::lora_linear does all that the pair stands for.
bool is_plain(const LoraAdapter::Pair& pair) {
  if (pair.magnitude.defined() || pair.bias.defined()) return false;
  if (!at::GradMode::is_enabled() || !pair.a.requires_grad()) return true;
  return pair.a.grad().defined() && pair.b.grad().defined();
}

bool is_frozen(const ops::Weight& weight) {
  const bool trained =
      weight.data.requires_grad() || (weight.bias.defined() && weight.bias.requires_grad());
  return weight.format != ops::WeightFormat::kPacked && !(at::GradMode::is_enabled() && trained);
}

void add_pair(ops::LoraModule& module, const LoraAdapter::Pair& pair, at::ScalarType dtype) {
  const bool is_rounded = pair.rounded_a.defined() && pair.rounded_a.scalar_type() == dtype;
  module.a = is_rounded ? pair.rounded_a : pair.a.detach().to(dtype);
  module.b = is_rounded ? pair.rounded_b : pair.b.detach().to(dtype);
  module.scale = pair.scale;
  if (!pair.a.requires_grad()) return;
  module.a_grad = pair.a.grad();
  module.b_grad = pair.b.grad();
}

}  // namespace

std::optional<std::vector<ops::LoraModule>> lora_modules(const std::vector<ops::Weight>& weights,
                                                         const AdapterView& adapters,
                                                         int64_t linear, at::ScalarType dtype) {
  if (!adapters.segments.empty() || adapters.dropout > 0) return std::nullopt;
  const LoraAdapter* adapter = adapters.is_base() ? nullptr : adapters.adapters.front().get();
  std::vector<ops::LoraModule> modules;
  for (size_t m = 0; m < weights.size(); ++m) {
    if (!is_frozen(weights[m])) return std::nullopt;
    modules.push_back({.weight = weights[m]});
    const auto* pair =
        adapter == nullptr ? nullptr : adapter->find(linear, static_cast<int64_t>(m));
    if (pair == nullptr) continue;
    if (!is_plain(*pair)) return std::nullopt;
    add_pair(modules.back(), *pair, dtype);
  }
  return modules;
}

}  // namespace lorry::model
