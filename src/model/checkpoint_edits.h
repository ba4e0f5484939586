// What a training makes of the tensors of a checkpoint, one stored tensor at a time: an adapter
// merged in, or new weights in place of the old.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/lora.h"
#include "model/safetensors.h"
#include "model/spec.h"

namespace lorry::model {

/// Knows where the modules lie in a checkpoint: under other prefixes, as slices of stacked experts,
/// as interleaved rows. Fails as corrupt data if the checkpoint lacks a tensor that is changed, as
/// unsupported if one is quantised. Adapter and tensors must outlive the object.
class CheckpointEdits {
 public:
  static Result<CheckpointEdits> merging(const ModelSpec& spec, const LoraAdapter& adapter,
                                         const SafetensorsReader& reader);
  /// `weights` by canonical name (Transformer::named_weights).
  static Result<CheckpointEdits> replacing(const ModelSpec& spec,
                                           const std::map<std::string, at::Tensor>& weights,
                                           const SafetensorsReader& reader);

  bool changes(const std::string& stored_name) const { return edits_.contains(stored_name); }
  /// A new tensor of `stored`'s shape and dtype; `stored` itself where nothing changes. Changes are
  /// computed in float32 and rounded once (merge_rounding.h).
  at::Tensor apply(const std::string& stored_name, const at::Tensor& stored) const;

 private:
  /// A change of the part `at` of a stored tensor.
  struct Edit {
    const LoraAdapter::Pair* pair = nullptr;  ///< merged into the part; null: `value` replaces it
    at::Tensor value;
    StoredAt at;
    int64_t rows = 0;  ///< of the part
  };
  Result<> add(Edit edit, const class StoredWeights& stored, const SafetensorsReader& reader);

  std::map<std::string, std::vector<Edit>> edits_;  // by stored name
};

}  // namespace lorry::model
