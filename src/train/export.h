// What a finished run leaves: a PEFT adapter, and the model with the adapter merged in.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/lora.h"
#include "model/transformer.h"
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

/// How far an export's logits are from those of what it was made of.
struct ExportCheck {
  double relative_rms = 0;  ///< rms of the difference over rms of the logits around their mean
  double max_abs = 0;
  int64_t tokens = 0;
};

/// Runs `input_ids` through both models, with `adapter` (may be null) on the first.
ExportCheck compare_logits(const model::Transformer& trained,
                           const std::shared_ptr<const model::LoraAdapter>& adapter,
                           const model::Transformer& exported,
                           const std::vector<int64_t>& input_ids);

/// What rounding to `dtype` ("float32", ...) alone may do to logits; an export that is further off
/// than the coarser of the stored and the computing dtype allow is not published.
double allowed_relative_rms(std::string_view dtype);

}  // namespace lorry::train
