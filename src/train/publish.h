// done/{model}/{dataset}: what a finished run makes visible, info.json last.
#pragma once

#include <optional>

#include "base/result.h"
#include "model/lora.h"
#include "model/transformer.h"
#include "store/claim.h"
#include "train/checkpoint.h"
#include "train/inputs.h"
#include "train/train.h"
#include "train/trainable.h"

namespace lorry::train {

/// A run behind its last step.
struct RunResult {
  const TrainOptions& options;
  const Inputs& inputs;
  const model::Transformer& model;
  std::shared_ptr<const model::LoraAdapter> adapter;  ///< null in full training
  const Trainable& trainable;
  const RunState& state;
  int64_t total_steps;
};

/// Writes lora_model (not in full training), fused, metrics.jsonl, report.html and info.json. The
/// merged model's logits are compared with the trained model's before; far off, nothing is
/// published.
Result<> publish(const RunResult& result, store::Claim& claim);

/// The report of a run with these inputs and options that is already published; nullopt if none is,
/// or with `fresh`. Fails if what is there is another model's or data set's.
Result<std::optional<TrainReport>> find_published(const TrainOptions& options,
                                                  const Inputs& inputs);

}  // namespace lorry::train
