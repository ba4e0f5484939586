// An adapter merged into the tensors of a checkpoint, one stored tensor at a time.
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

/// What an adapter makes of each tensor that a checkpoint stores. Knows where the modules lie in
/// it: under other prefixes, as slices of stacked experts, as interleaved rows.
class AdapterMerge {
 public:
  /// Fails as corrupt data if the checkpoint lacks a tensor that the adapter changes, as unsupported
  /// if one is quantised. What is given must outlive the object, the reader but for its names.
  static Result<AdapterMerge> create(const ModelSpec& spec, const LoraAdapter& adapter,
                                     const SafetensorsReader& reader, const std::string& dir);

  bool changes(const std::string& stored_name) const { return edits_.contains(stored_name); }
  /// A new tensor of `stored`'s shape and dtype; `stored` itself where nothing changes. Each product
  /// in float32 and rounded once, as `peft`'s merge.
  at::Tensor apply(const std::string& stored_name, const at::Tensor& stored) const;

 private:
  struct Edit {
    const LoraAdapter::Pair* pair = nullptr;  // null: `whole` replaces the tensor
    at::Tensor whole;
    StoredAt at;
    int64_t rows = 0;
    bool is_bias = false;
  };
  std::map<std::string, std::vector<Edit>> edits_;  // by stored name
};

}  // namespace lorry::model
