// A run as one record: everything that is needed to go on exactly where it stood.
//
// checkpoints/{model}/{dataset}/step-NNNNNN/ holds params.safetensors, optimizer.safetensors,
// metrics.jsonl and state.json; checkpoints/{model}/{dataset}/latest.json, written last, names the
// directory and so commits it. Random numbers are drawn from (seed, step), so the step is their
// state.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "store/bucket.h"
#include "store/claim.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "train/rows.h"
#include "train/trainable.h"

namespace lorry::train {

/// Where a run stands, apart from its tensors.
struct RunState {
  int64_t step = 0;           ///< optimiser steps behind us
  int64_t schedule_step = 0;  ///< those that float16 did not skip
  Cursor cursor;
  int64_t tokens = 0, targets = 0;
  int64_t cut_examples = 0, empty_examples = 0;
  double loss_scale = 1;
  int64_t loss_scale_good_steps = 0;
  std::vector<StepMetrics> history;
};

/// Not thread-safe.
class CheckpointStore {
 public:
  /// `identity` (identity.h) tells what makes a run. The claim on the run outlives this object.
  CheckpointStore(store::Claim& claim, std::string dir, Json identity);

  struct Found {
    std::string dir;
    RunState state;
  };
  /// The committed checkpoint of this run, or nullopt if there is none. One of other inputs (base,
  /// data or starting adapter changed since) can never be resumed: nullopt, and `stale` says what
  /// changed; it stays until the first `save` replaces it. One of the same inputs with other options
  /// may be worth hours: invalid input, which names the options and the ways on.
  Result<std::optional<Found>> find(std::string& stale);
  /// Reads parameters and optimiser state of what `find` gave.
  Result<> load(const Found& found, Trainable& trainable, AdamW& optimizer) const;
  /// Writes a record, commits it, then removes those before it.
  Result<> save(const RunState& state, const Trainable& trainable, const AdamW& optimizer);
  /// Removes all of them.
  Result<> clear();

 private:
  Error refuse(const std::string& what) const;
  Result<> remove_others(const std::string& keep);

  store::Claim& claim_;
  std::shared_ptr<store::Bucket> bucket_;  ///< the claim's
  std::string dir_;
  Json identity_;
  std::string stale_;  ///< name of a committed directory that is not this run's, until replaced
};

/// metrics.jsonl of a run.
std::string metrics_jsonl(const std::vector<StepMetrics>& history);

}  // namespace lorry::train
