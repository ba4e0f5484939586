#include "stages/run.h"

#include <fmt/format.h>

#include "base/log.h"
#include "cli/command.h"
#include "cli/encoding_flags.h"
#include "cli/shared_flags.h"
#include "inspect/names.h"
#include "store/layout.h"

namespace lorry::cli {
namespace {

class Run final : public Command {
 public:
  void declare(Flags& flags) override {
    flags.positional(
        "SOURCES", sources_, false,
        "the data set's source and the model's directory; none: what is in the bucket");
    flags.bucket_name("--dataset", dataset_, "name in the bucket (DATASET_NAME)", "DATASET_NAME");
    flags.bucket_name("--model", model_, "name in the bucket (MODEL_NAME)", "MODEL_NAME");
    declare_source_flags(flags, import_);
    declare_row_flags(flags, import_);
    work_.declare_limits(flags, import_);
    declare_run_name(flags, train_.run_name,
                     "keeps this training apart from others on the same data");
    declare_train_flags(flags, train_);
    declare_excess_length(
        flags, excess_,
        "pretokenize cuts, leaves out or splits rows longer than --max-length; not "
        "given: they stay whole, and training cuts them");
    declare_template_losses(flags, losses_);
    template_.declare(flags);
  }

  Result<Outcome> run(const Context& context) override {
    if (!sources_.empty() && sources_.size() != 2)
      return usage_error(
          fmt::format("run takes two sources, the data set's and the model's, or none; {} given",
                      sources_.size()));
    LORRY_TRY(check_train_options(*context.flags, train_));
    LORRY_TRY(check_run_name(train_.run_name));
    LORRY_TRY(work_.apply(context, import_));
    stages::RunOptions options;
    static_cast<stages::ShardWorkOptions&>(options.pretokenize) = import_;
    LORRY_ASSIGN(const auto bucket, context.open_bucket(!sources_.empty()));
    LORRY_TRY(check_adapter(*bucket, train_.adapter));
    LORRY_TRY(fill_sources(bucket, options));
    if (context.flags->given("--excess-length"))
      options.pretokenize.length = {train_.max_length, stages::excess_from(excess_)};
    LORRY_ASSIGN(options.pretokenize.template_settings, template_.settings());
    options.pretokenize.losses = stages::template_losses_from(losses_);
    options.pretokenize.bucket = bucket;
    options.pretokenize.progress = progress_line("pretokenize", "rows");
    options.train = train_;
    options.train.bucket = context.bucket;
    options.train.wait = options.pretokenize.wait;
    options.on_stage = [](const std::string& stage, const std::string& sentence) {
      log::info("{}: {}", stage, sentence);
    };
    LORRY_ASSIGN(const auto report, stages::run(std::move(options)));
    const std::string fused =
        store::fused_dir(report.model, store::run_of(report.dataset, train_.run_name));
    log::info("the merged model is {}; lorry serve --model {} --dataset {}{} answers with it",
              fused, report.model, report.dataset,
              train_.run_name.empty() ? "" : " --run-name " + train_.run_name);
    return Outcome{{{"model", report.model},
                    {"dataset", report.dataset},
                    {"rows", report.pretokenize.counts.rows},
                    {"tokens", report.pretokenize.counts.tokens},
                    {"steps", report.train.steps},
                    {"loss", report.train.last_loss},
                    {"seconds", report.train.seconds},
                    {"fused", fused}},
                   ""};
  }

 private:
  Result<> fill_sources(const std::shared_ptr<store::Bucket>& bucket, stages::RunOptions& options) {
    if (sources_.empty()) {
      LORRY_ASSIGN(options.pretokenize.model, inspect::choose_model(*bucket, model_));
      LORRY_ASSIGN(options.pretokenize.dataset, inspect::choose_dataset(*bucket, dataset_));
      if (model_.empty()) log::info("model: {}", options.pretokenize.model);
      if (dataset_.empty()) log::info("data set: {}", options.pretokenize.dataset);
      return {};
    }
    import_.bucket = bucket;
    import_.sources = {sources_[0]};
    import_.dataset = dataset_;
    const auto bytes = progress_line("import-dataset", "bytes");
    import_.progress = [bytes](int64_t, int64_t done, int64_t total) { bytes(done, total); };
    import_.standardize_progress = progress_line("standardize", "rows");
    options.dataset = std::move(import_);
    options.model = stages::ImportModelOptions{};
    options.model->bucket = bucket;
    options.model->wait = options.pretokenize.wait;
    options.model->source = sources_[1];
    options.model->model = model_;
    options.model->progress = progress_line("import-model", "bytes");
    return {};
  }

  std::vector<std::string> sources_;
  std::string dataset_, model_, excess_ = "truncate", losses_ = "fail";
  stages::ImportDatasetOptions import_;
  WorkFlags work_;
  TemplateFlags template_;
  train::TrainOptions train_;
};

}  // namespace

std::unique_ptr<Command> make_run() { return std::make_unique<Run>(); }

}  // namespace lorry::cli
