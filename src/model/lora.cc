#include "model/lora.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <random>

namespace lorry::model {
namespace {

constexpr std::string_view kNames[] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                       "gate_proj", "up_proj", "down_proj"};

size_t index_of(Projection projection) { return static_cast<size_t>(projection); }

/// U(-bound, bound) from a generator of our own, so that a seed means the same on every device.
at::Tensor uniform(int64_t rows, int64_t columns, double bound, uint64_t seed) {
  std::mt19937_64 generator(seed);
  at::Tensor tensor = at::empty({rows, columns}, at::kFloat);
  float* data = tensor.data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    const double unit = static_cast<double>(generator() >> 11) * 0x1.0p-53;  // [0, 1)
    data[i] = static_cast<float>((2 * unit - 1) * bound);
  }
  return tensor;
}

/// Another stream for each matrix, whatever else is a target (splitmix64).
uint64_t stream_seed(uint64_t seed, int64_t layer, Projection projection) {
  uint64_t x = seed + 0x9e3779b97f4a7c15ULL * (static_cast<uint64_t>(layer) * kProjections.size() +
                                               index_of(projection) + 1);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

/// y + scale * (x A^T) B^T for rows that share one adapter.
at::Tensor add_low_rank(const at::Tensor& y, const at::Tensor& x, const LoraAdapter::Pair& pair,
                        double scale, double dropout) {
  const at::Tensor input = dropout > 0 ? at::dropout(x, dropout, /*train=*/true) : x;
  const at::Tensor down = at::linear(input, pair.a.to(x.scalar_type()));  // (T, r)
  return at::addmm(y, down, pair.b.to(x.scalar_type()).t(), /*beta=*/1, /*alpha=*/scale);
}

}  // namespace

std::string_view projection_name(Projection projection) { return kNames[index_of(projection)]; }

std::optional<Projection> projection_from_name(std::string_view name) {
  for (const Projection projection : kProjections) {
    if (projection_name(projection) == name) return projection;
  }
  return std::nullopt;
}

std::pair<int64_t, int64_t> projection_shape(const ModelConfig& config, Projection projection) {
  const int64_t hidden = config.hidden_size;
  const int64_t q = config.num_attention_heads * config.head_dim;
  const int64_t kv = config.num_key_value_heads * config.head_dim;
  switch (projection) {
    case Projection::kQ:
      return {hidden, q};
    case Projection::kK:
    case Projection::kV:
      return {hidden, kv};
    case Projection::kO:
      return {q, hidden};
    case Projection::kGate:
    case Projection::kUp:
      return {hidden, config.intermediate_size};
    case Projection::kDown:
      return {config.intermediate_size, hidden};
  }
  return {0, 0};
}

double LoraConfig::scale() const {
  return use_rslora ? alpha / std::sqrt(static_cast<double>(r)) : alpha / static_cast<double>(r);
}

std::shared_ptr<LoraAdapter> LoraAdapter::create(const ModelConfig& model, LoraConfig config,
                                                 uint64_t seed, at::Device device) {
  auto adapter = std::make_shared<LoraAdapter>();
  adapter->config_ = std::move(config);
  const int64_t r = adapter->config_.r;
  adapter->layers_.resize(model.num_hidden_layers);
  for (int64_t layer = 0; layer < model.num_hidden_layers; ++layer) {
    for (const Projection projection : adapter->config_.targets) {
      const auto [in, out] = projection_shape(model, projection);
      const double bound = 1.0 / std::sqrt(static_cast<double>(in));
      Pair pair;
      pair.a = uniform(r, in, bound, stream_seed(seed, layer, projection)).to(device);
      pair.b = at::zeros({out, r}, at::TensorOptions().dtype(at::kFloat).device(device));
      adapter->layers_[layer][index_of(projection)] = std::move(pair);
    }
  }
  return adapter;
}

const LoraAdapter::Pair* LoraAdapter::find(int64_t layer, Projection projection) const {
  if (layer < 0 || layer >= static_cast<int64_t>(layers_.size())) return nullptr;
  const auto& pair = layers_[layer][index_of(projection)];
  return pair ? &*pair : nullptr;
}

at::Tensor merged_weight(const at::Tensor& weight, const LoraAdapter::Pair& pair, double scale) {
  const at::NoGradGuard no_grad;
  const at::Tensor delta = at::matmul(pair.b.to(at::kFloat), pair.a.to(at::kFloat)) * scale;
  return (weight.to(at::kFloat) + delta.to(weight.device())).to(weight.scalar_type());
}

at::Tensor linear_with_adapters(const at::Tensor& x, const at::Tensor& weight,
                                const at::Tensor& bias, const AdapterView& adapters, int64_t layer,
                                Projection projection) {
  const at::Tensor y =
      at::linear(x, weight, bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt);
  const auto adapted = [&](const LoraAdapter* adapter, const at::Tensor& rows_y,
                           const at::Tensor& rows_x) {
    const auto* pair = adapter == nullptr ? nullptr : adapter->find(layer, projection);
    if (pair == nullptr) return rows_y;
    return add_low_rank(rows_y, rows_x, *pair, adapter->config().scale(), adapters.dropout);
  };
  if (adapters.is_base()) return y;
  if (adapters.runs.empty()) return adapted(adapters.adapters.front(), y, x);

  std::vector<at::Tensor> parts;
  int64_t start = 0;
  for (const auto& [index, tokens] : adapters.runs) {
    parts.push_back(
        adapted(adapters.adapters[index], y.narrow(0, start, tokens), x.narrow(0, start, tokens)));
    start += tokens;
  }
  return at::cat(parts, 0);
}

}  // namespace lorry::model
