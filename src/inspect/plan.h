// `lorry plan`: what each stage holds or will take, before anything is bought.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "inspect/prices.h"
#include "store/bucket.h"
#include "train/train.h"

namespace lorry::inspect {

/// {bucket, dataset, model, stages: [{stage, state, rows, dropped, shards, bytes, memory, tokens,
/// target_tokens}], train: {examples, rows, steps, tokens, ...}, exact}. `exact` is true once the
/// tokens are there: then the training's counts are those that it will report. Before, tokens are
/// estimated from the first rows of the standardized shards. Numbers that are not known are left
/// out. `options.model` and `dataset` must be in the bucket; `memory` is the data stages' ceiling.
Result<Json> make_plan(const std::shared_ptr<store::Bucket>& bucket,
                       const train::TrainOptions& options, int64_t memory);

/// The hours and costs of that training on each machine (prices.h), for the plan's field `costs`.
/// On GPUs the memory is what a run with device cuda takes. Before the tokens are there only a
/// measured rate gives hours. `utilization` and `tokens_per_second` as in Job.
Result<Json> plan_costs(const Json& plan, train::TrainOptions options,
                        std::vector<PricedMachine> machines, double utilization,
                        double tokens_per_second);

/// A plan, with its costs if it has them, for people.
std::string format_plan(const Json& plan);

}  // namespace lorry::inspect
