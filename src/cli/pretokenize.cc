#include "stages/pretokenize.h"

#include "base/log.h"
#include "cli/command.h"
#include "cli/encoding_flags.h"
#include "cli/shared_flags.h"
#include "inspect/names.h"
#include "stages/run.h"

namespace lorry::cli {
namespace {

Json to_json(const stages::PretokenizeOptions& options, const stages::PretokenizeReport& report) {
  Json json = {{"model", options.model}, {"dataset", options.dataset}, {"shards", report.shards}};
  json.update(report.counts.to_json());
  json["dropped"] = report.dropped;
  json["complete"] = report.complete;
  json["missing"] = report.missing;
  json["up_to_date"] = report.up_to_date;
  return json;
}

class Pretokenize final : public Command {
 public:
  void declare(Flags& flags) override {
    declare_dataset(flags, dataset_);
    declare_model(flags, model_);
    flags.on("--with-text", options_.with_text, "keep the rendered text in a column `text`");
    encoding_.declare(flags);
    declare_template_losses(flags, losses_);
    template_.declare(flags);
    flags.integer("--skip-bad-rows", options_.skip_bad_rows, at_least(0),
                  "rows that the template refuses to leave out and record before giving up");
    work_.declare(flags, options_);
  }

  Result<Outcome> run(const Context& context) override {
    LORRY_TRY(work_.apply(context, options_));
    LORRY_TRY(encoding_.apply(context));
    options_.train_on = encoding_.train_on();
    options_.length = encoding_.length();
    LORRY_ASSIGN(options_.template_settings, template_.settings());
    options_.losses = stages::template_losses_from(losses_);
    LORRY_ASSIGN(options_.bucket, context.open_bucket(false));
    LORRY_ASSIGN(options_.model, inspect::choose_model(*options_.bucket, model_));
    LORRY_ASSIGN(options_.dataset, inspect::choose_dataset(*options_.bucket, dataset_));
    if (model_.empty()) log::info("model: {}", options_.model);
    if (dataset_.empty()) log::info("data set: {}", options_.dataset);
    LORRY_ASSIGN(options_.bucket, context.open_bucket(true));  // that is, for writing
    options_.progress = progress_line("pretokenize", "rows");
    LORRY_ASSIGN(const auto report, stages::pretokenize(options_));
    options_.progress = nullptr;
    log::info("{}", stages::describe(report));
    stages::log_losses(options_, report);
    if (!context.json && report.complete) {
      const std::string lengths = stages::describe_lengths(report.counts);
      if (!lengths.empty()) log::info("{}", lengths);
    }
    return Outcome{to_json(options_, report), ""};
  }

 private:
  std::string dataset_, model_;
  stages::PretokenizeOptions options_;
  EncodingFlags encoding_;
  TemplateFlags template_;
  std::string losses_ = "fail";
  WorkFlags work_;
};

}  // namespace

std::unique_ptr<Command> make_pretokenize() { return std::make_unique<Pretokenize>(); }

}  // namespace lorry::cli
