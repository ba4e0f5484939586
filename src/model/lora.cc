#include "model/lora.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "base/mix.h"
#include "model/shard_weights.h"
#include "ops/dropout.h"

namespace lorry::model {
namespace {

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

/// The number of each map's first module among all of the model's.
std::vector<uint64_t> first_modules(const ModelSpec& model) {
  std::vector<uint64_t> first;
  uint64_t count = 0;
  for (const LinearSpec& linear : model.linears) {
    first.push_back(count);
    count += linear.modules.size();
  }
  return first;
}

/// Length of each row of W + scale B A: what DoRA holds apart. Source: `peft` lora/dora.py.
at::Tensor row_norms(const at::Tensor& weight, const LoraAdapter::Pair& pair) {
  const at::Tensor delta = at::matmul(pair.b.detach(), pair.a.detach()) * pair.scale;
  return (weight.to(delta.scalar_type()) + delta).norm(2, {1}, false);
}

/// x A^T, then B^T, for rows that share one pair.
at::Tensor low_rank(const at::Tensor& x, const LoraAdapter::Pair& pair) {
  const at::Tensor down = at::linear(x, pair.a.to(x.scalar_type()));  // (T, r)
  return at::linear(down, pair.b.to(x.scalar_type()));
}

/// m / |W + s B A| * (x W^T + s x A^T B^T) without the bias; the norm counts as a constant.
at::Tensor dora(const at::Tensor& y, const at::Tensor& x, const ops::Weight& weight,
                const LoraAdapter::Pair& pair, const at::Tensor& dropped) {
  const at::Tensor norms =
      row_norms(ops::dequantize(weight, at::kFloat).detach(), pair).to(x.scalar_type());
  const at::Tensor factor = (pair.magnitude.to(x.scalar_type()) / norms).unsqueeze(0);
  const bool has_dropout = !dropped.is_same(x);
  ops::Weight plain = weight;
  plain.bias = at::Tensor();
  at::Tensor base = has_dropout ? ops::linear(dropped, plain) : y;
  if (!has_dropout && weight.bias.defined()) base = y - weight.bias;
  return y + (factor - 1) * base + factor * low_rank(dropped, pair) * pair.scale;
}

/// y with one pair's change for rows that share it. y: (n, out) of the base map, x: (n, in);
/// input: x after dropout.
at::Tensor apply_pair(at::Tensor y, const at::Tensor& x, const ops::Weight& weight,
                      const LoraAdapter::Pair& pair, const at::Tensor& input) {
  if (pair.a.defined()) {
    if (pair.magnitude.defined()) {
      y = dora(y, x, weight, pair, input);
    } else {
      const at::Tensor down = at::linear(input, pair.a.to(x.scalar_type()));  // (T, r)
      y = at::addmm(y, down, pair.b.to(x.scalar_type()).t(), /*beta=*/1, /*alpha=*/pair.scale);
    }
  }
  if (pair.bias.defined()) y = y + (pair.bias.to(x.scalar_type()) - weight.bias);
  return y;
}

}  // namespace

Result<std::shared_ptr<LoraAdapter>> LoraAdapter::create(const ModelSpec& model, LoraConfig config,
                                                         uint64_t seed, at::Device device,
                                                         const BaseWeights* base) {
  LORRY_ASSIGN(const auto selected, select_modules(model, config));
  auto adapter = std::make_shared<LoraAdapter>();
  adapter->config_ = std::move(config);
  adapter->linears_ = model.linears;
  adapter->saved_.prefix = model.module_prefix;
  const LoraConfig& c = adapter->config_;
  for (const LinearSpec& linear : model.linears)
    adapter->pairs_.emplace_back(linear.modules.size());
  const auto first = first_modules(model);
  for (const auto& [l, m] : selected) {
    const LinearSpec& linear = model.linears[l];
    const Module& module = linear.modules[m];
    const int64_t rank = c.rank_of(module.name);
    const double bound = 1.0 / std::sqrt(static_cast<double>(linear.in));
    Pair pair;
    pair.a = uniform(rank, linear.in, bound, mix(seed, first[l] + m)).to(device);
    pair.b = at::zeros({module.rows, rank}, at::TensorOptions().dtype(at::kFloat).device(device));
    pair.scale = c.scale_of(module.name);
    if (c.use_dora) pair.magnitude = row_norms(base->weight(l, m), pair);
    adapter->pairs_[l][m] = std::move(pair);
  }
  if (c.bias != "none") adapter->add_biases(*base);
  for (const std::string& name : c.modules_to_save) {
    at::Tensor& to = short_name(name) == "lm_head" ? adapter->saved_.head : adapter->saved_.embed;
    to = (short_name(name) == "lm_head" ? base->head() : base->embed())
             .to(device, at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  }
  return adapter;
}

void LoraAdapter::add_biases(const BaseWeights& base) {
  for (size_t l = 0; l < pairs_.size(); ++l) {
    for (size_t m = 0; m < pairs_[l].size(); ++m) {
      auto& pair = pairs_[l][m];
      if (!pair && config_.bias != "all") continue;
      const at::Tensor bias = base.bias(static_cast<int64_t>(l), static_cast<int64_t>(m));
      if (!bias.defined()) continue;
      if (!pair) pair.emplace();
      pair->bias = bias.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    }
  }
}

const LoraAdapter::Pair* LoraAdapter::find(int64_t linear, int64_t module) const {
  if (linear < 0 || linear >= static_cast<int64_t>(pairs_.size())) return nullptr;
  const auto& pair = pairs_[linear][module];
  return pair ? &*pair : nullptr;
}

Result<std::shared_ptr<const LoraAdapter>> LoraAdapter::part_of(const ModelShard& shard,
                                                                at::Device device) const {
  if (config_.use_dora) {
    return unsupported(
        "adapters with use_dora are not served with --tensor-parallel-size: merge it into its base "
        "model first");
  }
  const auto placed = [&](const at::Tensor& x) {
    return x.defined() ? x.detach().to(device).contiguous() : x;
  };
  auto part = std::make_shared<LoraAdapter>();
  part->config_ = config_;
  part->linears_ = shard.spec.linears;
  part->saved_ = {placed(saved_.embed), saved_.head, saved_.prefix};
  if (saved_.head.defined()) part->saved_.head = placed(rows_of(saved_.head, {shard.head}));
  part->pairs_ = pairs_;
  for (size_t l = 0; l < pairs_.size(); ++l) {
    const LinearShard& map = shard.linears[l];
    for (size_t m = 0; m < pairs_[l].size(); ++m) {
      auto& pair = part->pairs_[l][m];
      if (!pair) continue;
      pair->rounded_a = pair->rounded_b = at::Tensor();
      if (pair->a.defined()) {
        pair->a = placed(pair->a.narrow(1, map.columns.first, map.columns.count));
        pair->b = placed(rows_of(pair->b, map.rows[m]));
      }
      if (pair->bias.defined()) {
        pair->bias = map.has_bias ? placed(rows_of(pair->bias, map.rows[m])) : at::Tensor();
      }
    }
  }
  return part;
}

int64_t LoraAdapter::parameters() const {
  int64_t numbers = 0;
  for (const auto& [name, tensor] : named_parameters()) numbers += tensor.numel();
  return numbers;
}

std::vector<size_t> LoraAdapter::memory_order() const {
  std::vector<size_t> order;
  size_t next = 0;
  for (const auto& linear : pairs_) {
    std::vector<size_t> b, rest;
    for (const auto& pair : linear) {
      if (!pair) continue;
      if (pair->a.defined()) {
        order.push_back(next++);
        b.push_back(next++);
      }
      for (const at::Tensor* other : {&pair->magnitude, &pair->bias}) {
        if (other->defined()) rest.push_back(next++);
      }
    }
    order.insert(order.end(), b.begin(), b.end());
    order.insert(order.end(), rest.begin(), rest.end());
  }
  for (const at::Tensor* saved : {&saved_.embed, &saved_.head}) {
    if (saved->defined()) order.push_back(next++);
  }
  return order;
}

void LoraAdapter::round_to(at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  at::Tensor from, to;  // the buffer of the pair before, and its copy
  const auto rounded = [&](const at::Tensor& x) {
    const bool alone = x.storage().nbytes() == x.nbytes();
    if (alone) return x.detach().to(dtype);
    if (!from.defined() || !from.storage().is_alias_of(x.storage())) {
      const auto numbers = static_cast<int64_t>(x.storage().nbytes() / x.element_size());
      from = x.detach().as_strided({numbers}, {1}, 0);
      to = from.to(dtype);
    }
    return to.as_strided(x.sizes(), x.strides(), x.storage_offset());
  };
  for (auto& linear : pairs_) {
    for (auto& pair : linear) {
      if (!pair || !pair->a.defined()) continue;
      pair->rounded_a = rounded(pair->a);
      pair->rounded_b = rounded(pair->b);
    }
  }
}

at::Tensor merged_weight(const at::Tensor& weight, const LoraAdapter::Pair& pair) {
  const at::NoGradGuard no_grad;
  if (!pair.a.defined()) return weight.to(at::kFloat);
  const at::Tensor delta = at::matmul(pair.b.to(at::kFloat), pair.a.to(at::kFloat)) * pair.scale;
  at::Tensor sum = weight.to(at::kFloat) + delta.to(weight.device());
  if (pair.magnitude.defined()) {
    const at::Tensor magnitude = pair.magnitude.to(weight.device(), at::kFloat);
    sum = sum * (magnitude / sum.norm(2, {1}, false)).unsqueeze(1);
  }
  return sum;
}

bool AdapterView::is_base() const {
  return std::all_of(adapters.begin(), adapters.end(),
                     [](const auto& adapter) { return adapter == nullptr; });
}

AdapterView AdapterView::of_tokens(const at::Tensor& indices) const {
  AdapterView view{adapters, {}, dropout, {}};
  if (dropout_keys.defined()) view.dropout_keys = dropout_keys.index_select(0, indices);
  if (segments.empty()) return view;
  const at::Tensor host = indices.to(at::kCPU).contiguous();
  const int64_t* index = host.const_data_ptr<int64_t>();
  const int64_t count = host.numel();
  int64_t end = 0, next = 0;  // of the segment; into index
  for (const auto& [adapter, tokens] : segments) {
    end += tokens;
    const int64_t begin = next;
    while (next < count && index[next] < end) ++next;
    if (next > begin) view.segments.emplace_back(adapter, next - begin);
  }
  return view;
}

at::Tensor linear_with_adapters(const at::Tensor& x, const ops::Weight& weight,
                                const AdapterView& adapters, int64_t linear, int64_t module) {
  const at::Tensor y = ops::linear(x, weight);
  if (adapters.is_base()) return y;
  const auto dropped = [&](const at::Tensor& rows_x, const at::Tensor& keys) {
    const uint64_t salt = static_cast<uint64_t>(linear) << 16 | static_cast<uint64_t>(module);
    return ops::dropout(rows_x, adapters.dropout, keys, salt);
  };
  const auto adapted = [&](const LoraAdapter* adapter, const at::Tensor& rows_y,
                           const at::Tensor& rows_x, const at::Tensor& keys) {
    const auto* pair = adapter == nullptr ? nullptr : adapter->find(linear, module);
    if (pair == nullptr) return rows_y;
    return apply_pair(rows_y, rows_x, weight, *pair, dropped(rows_x, keys));
  };
  const at::Tensor& keys = adapters.dropout_keys;
  if (adapters.segments.empty()) return adapted(adapters.adapters.front().get(), y, x, keys);

  std::vector<at::Tensor> parts;
  int64_t start = 0;
  for (const auto& [index, tokens] : adapters.segments) {
    parts.push_back(adapted(adapters.adapters[index].get(), y.narrow(0, start, tokens),
                            x.narrow(0, start, tokens),
                            keys.defined() ? keys.narrow(0, start, tokens) : keys));
    start += tokens;
  }
  return at::cat(parts, 0);
}

}  // namespace lorry::model
