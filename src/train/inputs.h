// What a run reads: options, base model and model-ready shards, all checked before any work begins.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "data/token_shard.h"
#include "model/lora_config.h"
#include "model/spec.h"
#include "ops/weight.h"
#include "store/bucket.h"
#include "train/rows.h"
#include "train/train.h"

namespace lorry::train {

/// The adapter that the options ask for.
model::LoraConfig lora_config(const TrainOptions& options);

/// The format that `--base-format` names.
ops::WeightFormat base_format(const TrainOptions& options);
/// Unsupported where a device has no use for a format, with what to take instead.
/// `compute_capability`: 89 for sm_89; 0 for a device that is not CUDA.
Result<> check_format_on_device(ops::WeightFormat format, int compute_capability);

/// Where `--adapter` points: a local directory, or else one in the bucket.
struct AdapterSource {
  std::shared_ptr<store::Bucket> bucket;  ///< null: none was given
  std::string dir;
};

struct Inputs {
  std::shared_ptr<store::Bucket> bucket;
  model::ModelSpec spec;
  AdapterSource adapter;
  std::vector<std::shared_ptr<data::TokenShardReader>> shards;
  Json model_info, data_info;  ///< info.json of models/{model} and model-ready/{model}/{dataset}
  /// Digests of base, data and starting adapter, and the options that decide the result.
  Json identity;

  data::TokenRow row(Place place) const { return shards[place.shard]->row(place.row); }
};

/// Opens everything but the weights and the rows. Says which command is missing where a stage's
/// output is, and refuses data that was made with another tokenizer or template than the model has
/// now, or of another model or data set.
Result<Inputs> open_inputs(const TrainOptions& options);
/// Opens the rows.
Result<> open_rows(Inputs& inputs, const TrainOptions& options);
/// Whether they are those that the options expect.
bool are_expected(const Inputs& inputs, const TrainOptions& options);

/// The rows of a run over these inputs, which must outlive it.
RowSource make_rows(const TrainOptions& options, const Inputs& inputs);

/// Warns where examples, cut to `max_length`, are longer than the context that the model is made
/// for.
void warn_of_long_rows(const Inputs& inputs, int64_t max_length);

/// Fails unless some example has a target within `max_length` tokens.
Result<> check_targets(const Inputs& inputs, int64_t max_length);

}  // namespace lorry::train
