#include "pipeline/pretokenize.h"

#include "base/log.h"
#include "cli/command.h"
#include "cli/shared_flags.h"
#include "pipeline/names.h"
#include "pipeline/run.h"

namespace lorry::cli {
namespace {

class Pretokenize final : public Command {
 public:
  void declare(Flags& flags) override {
    declare_dataset(flags, dataset_);
    declare_model(flags, model_);
    flags.on("--with-text", options_.with_text, "keep the rendered text in a column `text`");
    flags.choice("--train-on", options_.train_on, {"assistant", "last", "all"},
                 "what counts in the loss: every assistant turn, the last one, or all tokens");
    flags.integer("--skip-bad-rows", options_.skip_bad_rows, at_least(0),
                  "rows that the template refuses to leave out and record before giving up");
    work_.declare(flags, options_);
  }

  Result<Outcome> run(const Context& context) override {
    LORRY_TRY(work_.apply(context, options_));
    LORRY_ASSIGN(options_.bucket, context.open_bucket(false));
    LORRY_ASSIGN(options_.model, pipeline::choose_model(*options_.bucket, model_));
    LORRY_ASSIGN(options_.dataset, pipeline::choose_dataset(*options_.bucket, dataset_));
    if (model_.empty()) log::info("model: {}", options_.model);
    if (dataset_.empty()) log::info("data set: {}", options_.dataset);
    LORRY_ASSIGN(options_.bucket, context.open_bucket(true));  // that is, for writing
    options_.progress = progress_line("pretokenize", "rows");
    LORRY_ASSIGN(const auto report, pipeline::pretokenize(options_));
    options_.progress = nullptr;
    log::info("{}", pipeline::describe(report));
    return Outcome{{{"model", options_.model},
                    {"dataset", options_.dataset},
                    {"shards", report.shards},
                    {"rows", report.rows},
                    {"tokens", report.tokens},
                    {"target_tokens", report.target_tokens},
                    {"rows_without_target", report.rows_without_target},
                    {"dropped", report.dropped},
                    {"longest", report.longest},
                    {"complete", report.complete},
                    {"missing", report.missing},
                    {"up_to_date", report.up_to_date}},
                   ""};
  }

 private:
  std::string dataset_, model_;
  pipeline::PretokenizeOptions options_;
  WorkFlags work_;
};

}  // namespace

std::unique_ptr<Command> make_pretokenize() { return std::make_unique<Pretokenize>(); }

}  // namespace lorry::cli
