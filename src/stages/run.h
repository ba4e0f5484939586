// `lorry run`: every stage up to the fused model.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "stages/import_dataset.h"
#include "stages/import_model.h"
#include "stages/pretokenize.h"
#include "train/train.h"

namespace lorry::stages {

struct RunOptions {
  /// Without a source the stage is left out and `pretokenize` names what the bucket already holds.
  std::optional<ImportDatasetOptions> dataset;
  std::optional<ImportModelOptions> model;
  PretokenizeOptions pretokenize;  ///< names are filled in from the imports
  train::TrainOptions train;       ///< likewise
  /// Called when a stage ended, from the thread that ran it: its name and a sentence.
  std::function<void(const std::string& stage, const std::string& sentence)> on_stage;
};

struct RunReport {
  std::string dataset, model;
  ImportDatasetReport dataset_import;
  ImportModelReport model_import;
  PretokenizeReport pretokenize;
  train::TrainReport train;
};

/// Both imports side by side, then pretokenize, then train. Stages whose inputs have not changed
/// do nothing. Where another process replaces what an earlier stage made, before the next has read
/// it, the run begins again, so that its result is made of its own inputs alone. The first error,
/// with its stage's name, ends the run and stops the other import.
Result<RunReport> run(RunOptions options);

/// Sentences for people about what a stage did.
std::string describe(const ImportDatasetReport& report);
std::string describe(const ImportModelReport& report);
std::string describe(const StandardizeReport& report);
std::string describe(const PretokenizeReport& report);
std::string describe(const train::TrainReport& report);

/// Warns of what the chat template does not show, unless the options allow it.
void log_losses(const PretokenizeOptions& options, const PretokenizeReport& report);

}  // namespace lorry::stages
