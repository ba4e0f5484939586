#include "model/checkpoint_edits.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "base/crc32c.h"
#include "model/merge_rounding.h"
#include "model/stored_weights.h"

namespace lorry::model {

Result<> CheckpointEdits::add(Edit edit, const StoredWeights& stored,
                              const SafetensorsReader& reader) {
  const std::string name = stored.stored_name(edit.at.name);
  if (reader.contains(name + "_blocks")) {
    return unsupported(fmt::format(
        "{}{} is held in MXFP4, which trained weights cannot be put into", reader.where(), name));
  }
  if (!reader.contains(name)) {
    return corrupt_data(fmt::format("{}the training changes {}, which the checkpoint does not have",
                                    reader.where(), name));
  }
  edits_[name].push_back(std::move(edit));
  return {};
}

Result<CheckpointEdits> CheckpointEdits::merging(const ModelSpec& spec, const LoraAdapter& adapter,
                                                 const SafetensorsReader& reader) {
  const StoredWeights stored(reader, spec);
  LORRY_ASSIGN(const bool has_own_head, stored.has_own_head());
  const bool saves = adapter.saved().embed.defined() || adapter.saved().head.defined();
  if (saves && spec.tie_word_embeddings && !has_own_head) {
    return unsupported(
        "the adapter trains embed_tokens or lm_head, which are one matrix in this model: merged, "
        "they would be two");
  }
  CheckpointEdits edits;
  for (size_t l = 0; l < spec.linears.size(); ++l) {
    for (size_t m = 0; m < spec.linears[l].modules.size(); ++m) {
      const Module& module = spec.linears[l].modules[m];
      const auto* pair = adapter.find(static_cast<int64_t>(l), static_cast<int64_t>(m));
      if (!pair) continue;
      if (pair->a.defined()) {
        LORRY_TRY(edits.add({pair, {}, module.weight, module.rows}, stored, reader));
      }
      if (pair->bias.defined()) {
        LORRY_TRY(edits.add({nullptr, pair->bias, module.bias, module.rows}, stored, reader));
      }
    }
  }
  const auto replace = [&](const std::string& name, const at::Tensor& value) -> Result<> {
    if (!value.defined()) return {};
    return edits.add({nullptr, value, {name}, spec.vocab_size}, stored, reader);
  };
  LORRY_TRY(replace(spec.tensors[spec.embed].name, adapter.saved().embed));
  LORRY_TRY(replace("lm_head.weight", adapter.saved().head));
  return edits;
}

Result<CheckpointEdits> CheckpointEdits::replacing(const ModelSpec& spec,
                                                   const std::map<std::string, at::Tensor>& weights,
                                                   const SafetensorsReader& reader) {
  const StoredWeights stored(reader, spec);
  CheckpointEdits edits;
  const auto replace = [&](const std::string& name, StoredAt at, int64_t rows) -> Result<> {
    const auto found = weights.find(name);
    if (found == weights.end()) return {};
    return edits.add({nullptr, found->second, std::move(at), rows}, stored, reader);
  };
  for (const TensorSpec& tensor : spec.tensors) {
    LORRY_TRY(replace(tensor.name, {tensor.name}, tensor.shape[0]));
  }
  for (const LinearSpec& linear : spec.linears) {
    for (const Module& module : linear.modules) {
      LORRY_TRY(replace(weight_name(module), module.weight, module.rows));
      if (!module.bias.name.empty()) {
        LORRY_TRY(replace(bias_name(module), module.bias, module.rows));
      }
    }
  }
  // A tied head that the checkpoint repeats follows the embedding.
  const std::string& embed = spec.tensors[spec.embed].name;
  const std::string head = stored.stored_name("lm_head.weight");
  if (spec.tie_word_embeddings && reader.contains(head) && !edits.changes(head) &&
      weights.contains(embed)) {
    LORRY_TRY(edits.add({nullptr, weights.at(embed), {"lm_head.weight"}, spec.vocab_size}, stored,
                        reader));
  }
  return edits;
}

at::Tensor CheckpointEdits::apply(const std::string& stored_name, const at::Tensor& stored) const {
  const at::NoGradGuard no_grad;
  const auto found = edits_.find(stored_name);
  if (found == edits_.end()) return stored;
  uint64_t seed = crc32c(stored_name);
  const auto changed = [&](const at::Tensor& before, const Edit& edit) {
    const at::Tensor after = edit.pair ? merged_weight(before, *edit.pair)
                                       : edit.value.detach().to(at::kCPU, at::kFloat);
    return round_trained(before, after, seed++);
  };
  at::Tensor edited;  // made when a part of the tensor changes
  for (const Edit& edit : found->second) {
    const bool is_all = edit.at.index < 0 && !edit.at.transposed && edit.at.step == 1 &&
                        stored.size(0) == edit.rows;
    if (is_all) return changed(stored, edit);
    if (!edited.defined()) edited = stored.clone();
    at::Tensor part = part_of(edited, edit.at, edit.rows);
    part.copy_(changed(part, edit));
  }
  return edited;
}

}  // namespace lorry::model
