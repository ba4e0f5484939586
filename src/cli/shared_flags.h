// Flags that several verbs share, and the progress lines of the stages.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "cli/command.h"
#include "cli/flags.h"
#include "serve/serve.h"
#include "stages/import_dataset.h"
#include "train/train.h"

namespace lorry::cli {

void declare_dataset(Flags& flags, std::string& target);
void declare_model(Flags& flags, std::string& target);

/// --config and --split: which rows of a source are imported.
void declare_source_flags(Flags& flags, stages::ImportDatasetOptions& options);
/// --format, --columns, --set, --skip-bad-rows: how rows are understood.
void declare_row_flags(Flags& flags, stages::ImportDatasetOptions& options);

/// --wait / --no-wait: what a verb that writes does when another process is at the same work.
void declare_wait(Flags& flags, bool& wait);
/// --run-name; check_run_name is its rule.
void declare_run_name(Flags& flags, std::string& target, const std::string& help);
Result<> check_run_name(const std::string& name);

/// Flags of the stages that make shards: --wait, --node-seconds, --rank, --world-size,
/// --max-dropped, --memory, --threads,
/// --fresh.
class WorkFlags {
 public:
  void declare(Flags& flags, stages::ShardWorkOptions& options);
  /// --wait, --max-dropped and --memory alone.
  void declare_limits(Flags& flags, stages::ShardWorkOptions& options);
  /// What no single flag can see. Call it before the stage.
  Result<> apply(const Context& context, stages::ShardWorkOptions& options) const;

 private:
  std::string max_dropped_;
  int64_t threads_ = 0;
};

/// The options of training but its names and bucket.
void declare_train_flags(Flags& flags, train::TrainOptions& options);
/// --dtype, --device, --max-model-len.
void declare_engine_flags(Flags& flags, serve::ServeOptions& options);

Result<> check_device(const std::string& device);
/// What no single flag can see; PEFT's `all-linear` becomes the empty list that stands for it.
Result<> check_train_options(const Flags& flags, train::TrainOptions& options);
/// Not found unless `adapter` is empty, a directory here, or one in the bucket.
Result<> check_adapter(const store::Bucket& bucket, const std::string& adapter);

/// A progress line that appears when it is first called. Its first count is where the work began.
std::function<void(int64_t done, int64_t total)> progress_line(const std::string& stage,
                                                               const std::string& unit);

/// Fills in `model` and, unless `base`, `dataset` (the trained one, with its run's name if it has
/// one: store::run_of) for serve, chat and eval. `dataset_flag` is named in the error where several
/// runs fit.
Result<> choose_served(const Context& context, bool base, const std::string& run_name,
                       serve::ServeOptions& options, const std::string& dataset_flag = "--dataset");

}  // namespace lorry::cli
