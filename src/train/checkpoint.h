// A run as one record: everything that is needed to go on exactly where it stood.
//
// checkpoints/{model}/{dataset}/ holds
//   step-NNNNNN/   params.safetensors, optimizer.safetensors and state.json of one step
//   metrics/       metrics.jsonl in parts, one a checkpoint (metrics_parts.h)
//   latest.json    written last: names the step's directory, and so commits it
// Random numbers are functions of (seed, place in the data), so they have no state. Format 1 kept
// the whole metrics.jsonl in each step's directory; it is still read.
#pragma once

#include <cstdint>
#include <future>
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
#include "train/metrics_parts.h"
#include "train/optimizer.h"
#include "train/rows.h"
#include "train/trainable.h"

namespace lorry::train {

/// Where a run stands, apart from its tensors.
struct RunState {
  int64_t step = 0;           ///< optimiser steps that are done
  int64_t schedule_step = 0;  ///< those that float16 did not skip
  Cursor cursor;
  int64_t tokens = 0, targets = 0;
  int64_t cut_examples = 0, empty_examples = 0;
  double loss_scale = 1;
  int64_t loss_scale_good_steps = 0;
  std::optional<StepMetrics> last;   ///< of the last step
  std::vector<StepMetrics> pending;  ///< of the steps since the last checkpoint
};

/// Bytes of host memory that a checkpoint's copy may take where the tensors are on the host
/// themselves; larger ones are written from the tensors, while training waits.
inline constexpr int64_t kMaxHostCopy = int64_t{1} << 30;

/// The checkpoints of one run. Its calls come from one thread.
class CheckpointStore {
 public:
  /// `identity` (identity.h) tells what makes a run. The claim on the run outlives this object.
  CheckpointStore(store::Claim& claim, std::string dir, Json identity);
  /// Waits for a write in progress.
  ~CheckpointStore();

  struct Found {
    std::string dir;
    RunState state;
    /// It was written by an older lorry: save it again before results are made of it.
    bool is_old_format = false;
  };
  /// The committed checkpoint of this run, or nullopt if there is none. Where there is one of
  /// another run (other options, base, data or starting adapter) or of another version of lorry,
  /// nullopt too, and `other` says what it is; it stays until the first `save` replaces it.
  Result<std::optional<Found>> find(std::string& other);
  /// Reads parameters and optimiser state of what `find` gave.
  Result<> load(const Found& found, Trainable& trainable, AdamW& optimizer) const;
  /// Waits for the write before, copies state and tensors, and writes the record on a thread while
  /// training goes on: it becomes visible when whole, then those before it are removed. Takes over
  /// state.pending. An error of the write before is returned here, by `check` or by `wait`.
  Result<> save(RunState& state, const Trainable& trainable, const AdamW& optimizer);
  /// The error of a write that has failed meanwhile. Does not wait.
  Result<> check();
  /// Waits for the last write and returns its error.
  Result<> wait();
  /// Removes all of them.
  Result<> clear();

  /// The lines of the steps that are saved.
  const MetricsParts& metrics() const { return metrics_; }

 private:
  struct Record;
  Result<> write(const Record& record);
  Result<std::optional<Found>> open(const Json& committed, std::string& other);
  Result<> keep_apart(const Json& state);
  Result<> remove_others(const std::string& keep);

  store::Claim& claim_;
  std::shared_ptr<store::Bucket> bucket_;  ///< the claim's
  std::string dir_;
  Json identity_;
  MetricsParts metrics_;
  std::string committed_;  ///< name of the directory that latest.json names; never written over
  std::future<Result<>> writing_;
};

}  // namespace lorry::train
