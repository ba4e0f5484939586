#include "train/train.h"

#include <fmt/format.h>

#include "base/log.h"
#include "cli/command.h"
#include "cli/shared_flags.h"
#include "engine/engine.h"
#include "inspect/names.h"
#include "stages/pretokenize.h"
#include "stages/run.h"
#include "store/layout.h"

namespace lorry::cli {
namespace {

class Train final : public Command {
 public:
  void declare(Flags& flags) override {
    declare_dataset(flags, options_.dataset);
    declare_model(flags, options_.model);
    declare_run_name(flags, options_.run_name,
                     "keeps this training apart from others on the same data: "
                     "done/MODEL/DATASET@NAME");
    declare_wait(flags, options_.wait);
    declare_train_flags(flags, options_);
  }

  Result<Outcome> run(const Context& context) override {
    LORRY_TRY(check_train_options(*context.flags, options_));
    LORRY_TRY(check_run_name(options_.run_name));
    LORRY_TRY(choose_names(context));
    options_.bucket = context.bucket;
    LORRY_ASSIGN(const auto* engine, engine::load_engine());
    LORRY_ASSIGN(const auto report, engine->train(options_));
    log::info("{}", stages::describe(report));
    return Outcome{{{"model", options_.model},
                    {"dataset", options_.dataset},
                    {"steps", report.steps},
                    {"tokens", report.tokens},
                    {"loss", report.last_loss},
                    {"seconds", report.seconds},
                    {"recompute", report.recompute},
                    {"up_to_date", report.already_done}},
                   ""};
  }

 private:
  Result<> choose_names(const Context& context) {
    auto bucket = context.open_bucket(false);
    if (!bucket.ok()) {
      Error error = bucket.error();
      error.message += "; run lorry import-dataset, import-model and pretokenize first";
      return error;
    }
    // Asked for by both names, the run's own input is the one to miss.
    if (options_.model.empty() || options_.dataset.empty()) {
      const bool model = !options_.model.empty(), dataset = !options_.dataset.empty();
      LORRY_ASSIGN(options_.model, inspect::choose_model(**bucket, options_.model));
      LORRY_ASSIGN(options_.dataset, inspect::choose_dataset(**bucket, options_.dataset));
      if (!model) log::info("model: {}", options_.model);
      if (!dataset) log::info("data set: {}", options_.dataset);
    }
    LORRY_TRY(check_adapter(**bucket, options_.adapter));
    const std::string ready = store::model_ready_dir(options_.model, options_.dataset);
    LORRY_ASSIGN(const auto info, (*bucket)->read_info(ready));
    if (info) {
      LORRY_ASSIGN(const bool stale, stages::tokens_are_stale(**bucket, *info, options_.dataset));
      if (stale)
        log::warn("{} was made before standardized/{} changed; lorry pretokenize makes it anew",
                  ready, options_.dataset);
      const std::string cut =
          stages::describe_cut(stages::TokenCounts::from_json(*info), options_.max_length);
      if (!cut.empty()) log::info("{}", cut);
      // Whether it can be written is better known before the hours of training than after.
      LORRY_TRY(context.open_bucket(true));
      return {};
    }
    return not_found(fmt::format("{} is not complete in bucket {}; run lorry pretokenize first",
                                 ready, (*bucket)->uri()));
  }

  train::TrainOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_train() { return std::make_unique<Train>(); }

}  // namespace lorry::cli
