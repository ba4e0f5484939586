#include "pipeline/plan.h"

#include "cli/command.h"
#include "cli/shared_flags.h"
#include "pipeline/names.h"
#include "pipeline/shard_work.h"

namespace lorry::cli {
namespace {

class Plan final : public Command {
 public:
  void declare(Flags& flags) override {
    declare_dataset(flags, options_.dataset);
    declare_model(flags, options_.model);
    flags.bytes("--memory", memory_, at_least(16 << 20), "memory that a data stage may hold");
    declare_train_flags(flags, options_);
  }

  Result<Outcome> run(const Context& context) override {
    // A GPU that is planned for need not be here, so the device is not asked for.
    LORRY_TRY(check_train_options(options_));
    LORRY_ASSIGN(const auto bucket, context.open_bucket(false));
    options_.bucket = context.bucket;
    LORRY_ASSIGN(options_.model, pipeline::choose_model(*bucket, options_.model));
    LORRY_ASSIGN(options_.dataset, pipeline::choose_dataset(*bucket, options_.dataset));
    LORRY_ASSIGN(Json plan, pipeline::make_plan(bucket, options_, memory_));
    std::string text = pipeline::format_plan(plan);
    return Outcome{std::move(plan), std::move(text)};
  }

 private:
  train::TrainOptions options_;
  int64_t memory_ = pipeline::ShardWorkOptions().memory;
};

}  // namespace

std::unique_ptr<Command> make_plan() { return std::make_unique<Plan>(); }

}  // namespace lorry::cli
