// What a finished run leaves: a PEFT adapter, and the model with the adapter merged in. Weights are
// read, changed and written one tensor at a time: the most memory is what the largest one takes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/lora.h"
#include "store/bucket.h"

namespace lorry::train {

/// Writes the adapter and the model's tokenizer files and chat template to `out_dir`.
Result<> export_adapter(const store::Bucket& bucket, const model::LoraAdapter& adapter,
                        const std::string& base_name, const std::string& model_dir,
                        const std::string& out_dir);

/// Writes the checkpoint of `model_dir` with scale * B A added to each target's weight (in float32,
/// rounded once to the weight's own dtype), with its config and tokenizer files. Files hold at most
/// `max_file_bytes` of tensors; more than one have an index.
Result<> export_merged(const store::Bucket& bucket, const model::ModelSpec& spec,
                       const model::LoraAdapter& adapter, const std::string& model_dir,
                       const std::string& out_dir, int64_t max_file_bytes = 5'000'000'000);

/// The same with new weights by checkpoint name instead of an adapter, rounded to the dtypes of the
/// checkpoint in `model_dir`.
Result<> export_full(const store::Bucket& bucket, const model::ModelSpec& spec,
                     const std::vector<std::string>& names, const std::vector<at::Tensor>& params,
                     const std::string& model_dir, const std::string& out_dir,
                     int64_t max_file_bytes = 5'000'000'000);

}  // namespace lorry::train
