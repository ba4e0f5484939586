// done/{model}/{dataset}: what a finished run makes visible, info.json last.
#pragma once

#include <memory>
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

/// A run after its last step. `publish` frees the weights as soon as it can do without them.
struct RunResult {
  const TrainOptions& options;
  const Inputs& inputs;
  std::shared_ptr<const model::Transformer> model;
  std::shared_ptr<const model::LoraAdapter> adapter;  ///< null in full training
  Trainable trainable;
  const RunState& state;
  const MetricsParts& metrics;  ///< of all steps
  std::string waiting_dir;      ///< for a result that another one must make room for first
  std::string_view recompute;   ///< what was recomputed in the backward pass
};

/// Writes lora_model (not in full training), fused, metrics.jsonl, report.html and info.json, with
/// never more than one model in memory: the trained one answers first, then it is freed, and the
/// merged one is read back and must give the same logits, as far as rounding goes (merge_check.h).
/// After training on a quantised base it must give those of the checkpoint's weights with the
/// adapter; how far they are from the trained ones is measured and recorded.
/// An earlier result stays in place while the new one is written to `waiting_dir`, and is replaced
/// when that is whole. A merged model that is wrong beyond rounding is removed and an error; where
/// it replaces nothing, lora_model and the rest are published all the same, with the measured
/// numbers in info.json. `result` must be the only owner of its weights.
Result<> publish(RunResult result, store::Claim& claim);

/// The report of a run with these inputs and options that is already published whole; nullopt if
/// none is, or with `fresh`. Fails if what is there is another model's or data set's, or another
/// run's and neither `replace` nor `fresh` is given.
Result<std::optional<TrainReport>> find_published(const TrainOptions& options,
                                                  const Inputs& inputs);

}  // namespace lorry::train
