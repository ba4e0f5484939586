#include "model/transformer.h"

#include <ATen/ATen.h>

#include "model/lora_products.h"
#include "ops/gate.h"
#include "ops/residual_rms_norm.h"
#include "ops/rms_norm.h"

namespace lorry::model {

// T tokens, R rows with logits, V vocabulary size.

at::Tensor Transformer::forward(const at::Tensor& input_ids, const at::Tensor& positions,
                                AttentionView& attention, const AdapterView& adapters) const {
  const StepContext context = step_context(positions, attention, adapters);
  at::Tensor x = embed(input_ids, adapters);  // (T, hidden_size)
  for (int64_t layer = 0; layer < spec_.num_hidden_layers(); ++layer) {
    x = run_block(layer, x, context);
  }
  return finish(x);
}

StepContext Transformer::step_context(const at::Tensor& positions, AttentionView& attention,
                                      const AdapterView& adapters) const {
  StepContext context{attention, adapters, {}};
  for (const RopeFrequencies& rope : ropes_) {
    const at::Tensor lengths =
        rope.long_inv_freq.defined() ? attention.context_lengths(positions.device()) : at::Tensor();
    context.angles.push_back(rope_angles(positions, lengths, rope, dtype_));
  }
  return context;
}

namespace {

/// fn(adapter, rows of x) for each segment, put together again.
template <typename Fn>
at::Tensor by_adapter(const at::Tensor& x, const AdapterView& view, Fn&& fn) {
  if (view.adapters.empty()) return fn(nullptr, x);
  if (view.segments.empty()) return fn(view.adapters.front().get(), x);
  std::vector<at::Tensor> parts;
  int64_t start = 0;
  for (const auto& [index, tokens] : view.segments) {
    parts.push_back(fn(view.adapters[index].get(), x.narrow(0, start, tokens)));
    start += tokens;
  }
  return at::cat(parts, 0);
}

bool any_saved(const AdapterView& view, at::Tensor LoraAdapter::SavedModules::*member) {
  for (const auto& adapter : view.adapters) {
    if (adapter && (adapter->saved().*member).defined()) return true;
  }
  return false;
}

}  // namespace

at::Tensor Transformer::embed(const at::Tensor& input_ids, const AdapterView& adapters) const {
  const at::Tensor& table = tensors_[spec_.embed];
  const auto rows_of = [&](const at::Tensor& matrix, const at::Tensor& ids) {
    return at::embedding(matrix, ids, spec_.pad_token_id).to(dtype_);
  };
  const auto base = [&](const at::Tensor& ids) {
    return table.defined() ? rows_of(table, ids) : ops::dequantize_rows(packed_head_, ids, dtype_);
  };
  at::Tensor x;
  if (any_saved(adapters, &LoraAdapter::SavedModules::embed)) {
    x = by_adapter(input_ids, adapters, [&](const LoraAdapter* adapter, const at::Tensor& ids) {
      const bool own = adapter && adapter->saved().embed.defined();
      return own ? rows_of(adapter->saved().embed, ids) : base(ids);
    });
  } else {
    x = base(input_ids);
  }
  if (spec_.embedding_scale == 1) return x;
  return x * at::scalar_tensor(spec_.embedding_scale, x.options());  // rounded to the dtype first
}

at::Tensor Transformer::run_block(int64_t layer, const at::Tensor& x,
                                  const StepContext& context) const {
  const BlockSpec& block = spec_.layers[layer];
  const auto branch = [&](const at::Tensor& y, const NormSpec& after) {
    const at::Tensor normed = norm(y, after);
    return block.residual_scale == 1 ? normed : normed * block.residual_scale;
  };
  const MapInput at_attention =
      after_norm(norm(x, block.before_attention), x, block.before_attention, context);
  const at::Tensor attended =
      branch(over_ranks(std::visit(
                 [&](const auto& spec) { return attend(layer, spec, at_attention, context); },
                 block.attention)),
             block.after_attention);
  const auto [h, normed] = add_and_norm(attended, x, block.before_mlp);
  const MapInput at_mlp = after_norm(normed, h, block.before_mlp, context);
  const at::Tensor fed =
      branch(over_ranks(std::visit(
                 [&](const auto& spec) {
                   return feed_forward(spec, at_mlp, context.adapters, context.recomputes_light);
                 },
                 block.mlp)),
             block.after_mlp);
  return h + fed;
}

Transformer::MapInput Transformer::after_norm(at::Tensor normed, const at::Tensor& x,
                                              const NormSpec& spec,
                                              const StepContext& context) const {
  if (!context.recomputes_light || spec.tensor < 0) return {std::move(normed), {}};
  return {std::move(normed), [this, &spec, x = x.detach()] { return norm(x, spec); }};
}

std::pair<at::Tensor, at::Tensor> Transformer::add_and_norm(const at::Tensor& x,
                                                            const at::Tensor& residual,
                                                            const NormSpec& spec) const {
  if (spec.tensor < 0) {
    const at::Tensor sum = residual + x;
    return {sum, sum};
  }
  const auto out = ops::residual_rms_norm(x, residual, tensors_[spec.tensor], spec.eps, spec.kind);
  return {out.sum, out.normed};
}

at::Tensor Transformer::finish(const at::Tensor& x) const { return norm(x, spec_.final_norm); }

at::Tensor Transformer::norm(const at::Tensor& x, const NormSpec& spec) const {
  return spec.tensor < 0 ? x : ops::rms_norm(x, tensors_[spec.tensor], spec.eps, spec.kind);
}

at::Tensor Transformer::over_ranks(at::Tensor x) const {
  return ranks_ ? ranks_->sum(rank_, std::move(x)) : x;
}

at::Tensor Transformer::own_head() const {
  const at::Tensor& head = tensors_[spec_.head];
  // Tied to the embedding, which every rank has whole, it is not cut yet.
  const bool is_cut = !shard_ || head.size(0) == shard_->head.count;
  return is_cut ? head : head.narrow(0, shard_->head.first, shard_->head.count);
}

at::Tensor Transformer::project_joined(int linear, const MapInput& input,
                                       const AdapterView& adapters) const {
  auto modules = lora_modules(linears_[linear], adapters, linear, input.x.scalar_type());
  return modules ? ops::lora_linear(input.x, std::move(*modules), input.again) : at::Tensor();
}

std::vector<at::Tensor> Transformer::project_each(int linear, const at::Tensor& x,
                                                  const AdapterView& adapters) const {
  const std::vector<ops::Weight>& weights = linears_[linear];
  std::vector<at::Tensor> outputs;
  for (size_t module = 0; module < weights.size(); ++module) {
    outputs.push_back(
        linear_with_adapters(x, weights[module], adapters, linear, static_cast<int64_t>(module)));
  }
  return outputs;
}

std::vector<at::Tensor> Transformer::project_split(int linear, const at::Tensor& x,
                                                   const AdapterView& adapters,
                                                   const std::vector<int64_t>& sizes,
                                                   const at::Tensor& joined) const {
  if (joined.defined()) return joined.split_with_sizes(sizes, -1);
  std::vector<at::Tensor> outputs = project_each(linear, x, adapters);
  if (outputs.size() == sizes.size()) return outputs;
  return outputs[0].split_with_sizes(sizes, -1);
}

at::Tensor Transformer::project_one(int linear, const MapInput& input,
                                    const AdapterView& adapters) const {
  const at::Tensor joined = project_joined(linear, input, adapters);
  return joined.defined() ? joined : project_each(linear, input.x, adapters)[0];
}

at::Tensor Transformer::feed_forward(const MlpSpec& spec, const MapInput& input,
                                     const AdapterView& adapters, bool recomputes_gate) const {
  const at::Tensor joined = project_joined(spec.gate_up, input, adapters);
  if (joined.defined()) {
    MapInput at_down{ops::gated(joined, spec.activation), {}};
    if (recomputes_gate) {
      at_down.again = [&spec, joined = joined.detach()] {
        return ops::gated(joined, spec.activation);
      };
    }
    return project_one(spec.down, at_down, adapters);
  }
  const auto halves =
      project_split(spec.gate_up, input.x, adapters, {spec.width, spec.width}, joined);
  return project_one(spec.down, {ops::gated(halves[0], halves[1], spec.activation), {}}, adapters);
}

at::Tensor Transformer::logits(const at::Tensor& hidden, const AdapterView& adapters) const {
  const auto base = [&](const at::Tensor& rows) {
    return ops::linear(rows,
                       packed_head_.defined() ? packed_head_ : ops::Weight::dense(own_head()));
  };
  at::Tensor logits;
  if (any_saved(adapters, &LoraAdapter::SavedModules::head)) {
    logits = by_adapter(hidden, adapters, [&](const LoraAdapter* adapter, const at::Tensor& rows) {
      const bool own = adapter && adapter->saved().head.defined();
      return own ? at::linear(rows, adapter->saved().head.to(dtype_)) : base(rows);
    });
  } else {
    logits = base(hidden);
  }
  if (spec_.logit_scale != 1) logits = logits * spec_.logit_scale;
  if (spec_.logit_softcap > 0) {
    logits = at::tanh(logits / spec_.logit_softcap) * spec_.logit_softcap;
  }
  return logits;
}

}  // namespace lorry::model
