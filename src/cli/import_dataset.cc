#include "stages/import_dataset.h"

#include "base/log.h"
#include "cli/command.h"
#include "cli/shared_flags.h"
#include "stages/run.h"

namespace lorry::cli {
namespace {

class ImportDataset final : public Command {
 public:
  void declare(Flags& flags) override {
    flags.positional(
        "SOURCE", options_.sources, true,
        "Hub id, files, directories, globs, https:// s3:// gs:// az:// hf:// URLs, @LIST of them; "
        ".jsonl .json .csv .parquet .arrow, also .gz .zst");
    flags.bucket_name("--dataset", options_.dataset,
                      "name in the bucket (the Hub id, or the first file's stem; DATASET_NAME)",
                      "DATASET_NAME");
    declare_source_flags(flags, options_);
    declare_row_flags(flags, options_);
    flags.text("--revision", options_.hub.revision, "REV",
               "branch, tag or commit of the Hub's repository (main)");
    flags.toggle("--standardize", options_.standardize, "go on to standardized/");
    work_.declare(flags, options_);
  }

  Result<Outcome> run(const Context& context) override {
    LORRY_TRY(work_.apply(context, options_));
    LORRY_ASSIGN(options_.bucket, context.open_bucket(true));
    const auto bytes = progress_line("import-dataset", "bytes");
    options_.progress = [bytes](int64_t, int64_t done, int64_t total) { bytes(done, total); };
    options_.standardize_progress = progress_line("standardize", "rows");
    LORRY_ASSIGN(const auto report, stages::import_dataset(options_));
    options_.progress = nullptr;  // takes the lines off the screen
    options_.standardize_progress = nullptr;
    log::info("{}", stages::describe(report));
    const bool standardized = options_.standardize && report.complete;
    if (standardized) log::info("{}", stages::describe(report.standardized));
    Json json = {{"dataset", report.dataset},   {"rows", report.rows},
                 {"shards", report.shards},     {"bytes", report.bytes},
                 {"dropped", report.dropped},   {"up_to_date", report.up_to_date},
                 {"complete", report.complete}, {"missing", report.missing},
                 {"seconds", report.seconds}};
    if (standardized)
      json["standardized"] = {{"rows", report.standardized.rows},
                              {"format", report.standardized.format},
                              {"unused_columns", report.standardized.unused_columns},
                              {"dropped", report.standardized.dropped},
                              {"up_to_date", report.standardized.up_to_date}};
    return Outcome{json, ""};
  }

 private:
  stages::ImportDatasetOptions options_;
  WorkFlags work_;
};

}  // namespace

std::unique_ptr<Command> make_import_dataset() { return std::make_unique<ImportDataset>(); }

}  // namespace lorry::cli
