// The batches of a run, each prepared on a thread while the step before it is computed.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <vector>

#include "train/batch.h"
#include "train/rows.h"

namespace lorry::train {

/// One step's work, and where in the data the run stands after it.
struct PreparedStep {
  std::vector<PackedRow> rows;
  StepBatch batch;
  Cursor cursor;     ///< after this step: what a checkpoint of it holds
  double epoch = 0;  ///< passes over the data after this step, as `transformers` counts them
};

/// Hands out the steps in order. One step is prepared ahead, so that the memory of two batches is
/// held. `rows` and what the functions use belong to the loader's thread until it is destroyed.
class BatchLoader {
 public:
  struct Source {
    RowSource& rows;
    int64_t rows_per_step = 1;
    int64_t rows_per_micro_batch = 1;  ///< batch_size, in which epochs are counted
    /// Makes the tensors of some rows of an epoch.
    std::function<StepBatch(const std::vector<PackedRow>&, int64_t epoch)> make;
  };
  /// `steps` are left after `cursor`.
  BatchLoader(Source source, Cursor cursor, int64_t steps);
  /// Waits for the step that is being prepared.
  ~BatchLoader();
  BatchLoader(const BatchLoader&) = delete;
  BatchLoader& operator=(const BatchLoader&) = delete;

  /// The next of the steps; none may be left. Throws what `make` threw.
  PreparedStep next();

 private:
  void prepare(Cursor cursor);
  PreparedStep prepared(Cursor cursor);

  Source source_;
  int64_t left_;
  std::future<PreparedStep> next_;
};

}  // namespace lorry::train
