#include "model/merge.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "model/stored_weights.h"

namespace lorry::model {

Result<AdapterMerge> AdapterMerge::create(const ModelSpec& spec, const LoraAdapter& adapter,
                                          const SafetensorsReader& reader,
                                          const std::string& dir) {
  const StoredWeights stored(reader, spec, dir);
  AdapterMerge merge;
  const auto add = [&](const std::string& name, Edit edit) -> Result<> {
    const std::string in_file = stored.stored_name(name);
    if (reader.contains(in_file + "_blocks")) {
      return unsupported(fmt::format(
          "{}: {} is held in MXFP4, into which no adapter can be merged", dir, in_file));
    }
    if (!reader.contains(in_file)) {
      return corrupt_data(fmt::format(
          "{}: the adapter changes {}, which the checkpoint does not have", dir, in_file));
    }
    merge.edits_[in_file].push_back(std::move(edit));
    return {};
  };
  for (size_t l = 0; l < spec.linears.size(); ++l) {
    for (size_t m = 0; m < spec.linears[l].modules.size(); ++m) {
      const Module& module = spec.linears[l].modules[m];
      const auto* pair = adapter.find(static_cast<int64_t>(l), static_cast<int64_t>(m));
      if (!pair) continue;
      if (pair->a.defined()) {
        LORRY_TRY(add(module.weight.name, {pair, {}, module.weight, module.rows, false}));
      }
      if (pair->bias.defined()) {
        LORRY_TRY(add(module.bias.name, {pair, {}, module.bias, module.rows, true}));
      }
    }
  }
  const auto& saved = adapter.saved();
  if (saved.embed.defined()) {
    LORRY_TRY(add(spec.tensors[spec.embed].name, {nullptr, saved.embed}));
  }
  if (saved.head.defined()) LORRY_TRY(add("lm_head.weight", {nullptr, saved.head}));
  return merge;
}

at::Tensor AdapterMerge::apply(const std::string& stored_name, const at::Tensor& stored) const {
  const at::NoGradGuard no_grad;
  const auto found = edits_.find(stored_name);
  if (found == edits_.end()) return stored;
  at::Tensor merged;  // made when a part of the tensor changes
  for (const Edit& edit : found->second) {
    if (!edit.pair) return edit.whole.detach().to(at::kCPU, stored.scalar_type());
    const bool is_all = edit.at.index < 0 && !edit.at.transposed && edit.at.step == 1 &&
                        stored.size(0) == edit.rows;
    if (is_all) {
      return edit.is_bias ? edit.pair->bias.detach().to(at::kCPU, stored.scalar_type())
                          : merged_weight(stored, *edit.pair);
    }
    if (!merged.defined()) merged = stored.clone();
    at::Tensor part = part_of(merged, edit.at, edit.rows);
    part.copy_(edit.is_bias ? edit.pair->bias : merged_weight(part, *edit.pair));
  }
  return merged;
}

}  // namespace lorry::model
