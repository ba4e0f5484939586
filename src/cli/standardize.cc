#include "stages/standardize.h"

#include "base/log.h"
#include "cli/command.h"
#include "cli/shared_flags.h"
#include "inspect/names.h"
#include "stages/run.h"

namespace lorry::cli {
namespace {

class Standardize final : public Command {
 public:
  void declare(Flags& flags) override {
    declare_dataset(flags, dataset_);
    declare_row_flags(flags, import_);
    work_.declare(flags, import_);
  }

  Result<Outcome> run(const Context& context) override {
    stages::StandardizeOptions options;
    LORRY_TRY(work_.apply(context, import_));
    static_cast<stages::ShardWorkOptions&>(options) = import_;
    LORRY_ASSIGN(options.bucket, context.open_bucket(false));
    LORRY_ASSIGN(options.dataset,
                 inspect::choose(*options.bucket, "raw", dataset_, "data set", "--dataset"));
    if (dataset_.empty()) log::info("data set: {}", options.dataset);
    static_cast<data::RowOptions&>(options) = import_;
    options.progress = progress_line("standardize", "rows");
    LORRY_ASSIGN(const auto report, stages::standardize(options));
    options.progress = nullptr;
    log::info("{}", stages::describe(report));
    return Outcome{{{"dataset", options.dataset},
                    {"rows", report.rows},
                    {"rows_in", report.rows_in},
                    {"shards", report.shards},
                    {"format", report.format},
                    {"unused_columns", report.unused_columns},
                    {"dropped", report.dropped},
                    {"complete", report.complete},
                    {"missing", report.missing},
                    {"up_to_date", report.up_to_date},
                    {"seconds", report.seconds}},
                   ""};
  }

 private:
  std::string dataset_;
  stages::ImportDatasetOptions import_;  // the part about rows
  WorkFlags work_;
};

}  // namespace

std::unique_ptr<Command> make_standardize() { return std::make_unique<Standardize>(); }

}  // namespace lorry::cli
