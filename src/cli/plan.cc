#include "inspect/plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/log.h"
#include "cli/command.h"
#include "cli/shared_flags.h"
#include "inspect/names.h"
#include "inspect/prices.h"
#include "stages/shard_work.h"

namespace lorry::cli {
namespace {

class Plan final : public Command {
 public:
  void declare(Flags& flags) override {
    declare_dataset(flags, options_.dataset);
    declare_model(flags, options_.model);
    declare_run_name(flags, options_.run_name, "the run that is planned");
    flags.bytes("--memory", memory_, at_least(16 << 20), "memory that a data stage may hold");
    declare_train_flags(flags, options_);
    declare_price_flags(flags);
  }

  Result<Outcome> run(const Context& context) override {
    // A GPU that is planned for need not be here, so the device is not asked for.
    LORRY_TRY(check_train_options(*context.flags, options_));
    LORRY_TRY(check_price_flags(*context.flags));
    LORRY_TRY(check_run_name(options_.run_name));
    LORRY_ASSIGN(const auto bucket, context.open_bucket(false));
    LORRY_TRY(check_adapter(*bucket, options_.adapter));
    options_.bucket = context.bucket;
    LORRY_ASSIGN(options_.model, inspect::choose_model(*bucket, options_.model));
    LORRY_ASSIGN(options_.dataset, inspect::choose_dataset(*bucket, options_.dataset));
    LORRY_ASSIGN(Json plan, inspect::make_plan(bucket, options_, memory_));
    LORRY_ASSIGN(auto machines, priced_machines(*context.flags));
    if (!machines.empty()) {
      auto costs = inspect::plan_costs(plan, options_, std::move(machines), utilization_,
                                       tokens_per_second_);
      if (!costs.ok()) return std::move(costs).error();
      plan["costs"] = *std::move(costs);
    }
    std::string text = inspect::format_plan(plan);
    return Outcome{std::move(plan), std::move(text)};
  }

 private:
  using Machines = std::vector<inspect::PricedMachine>;

  void declare_price_flags(Flags& flags) {
    flags.list(
        "--gpu", gpus_, "NAME,...",
        "GPUs to estimate for: T4, L4, A10G, A100, A100-80GB, H100, H200 (all with a price)");
    flags.real("--price", price_, at_least(0),
               "US dollars an hour of the one machine that --gpu names or --tokens-per-second was "
               "measured on");
    flags.pairs("--prices", prices_, true, "GPU=USD,...",
                "US dollars an hour of several; cpu is this machine");
    flags.text("--catalog", catalog_, "DIR|none",
               "SkyPilot's catalogue of prices (the one in ~/.sky/catalogs, if it is there)");
    flags.real("--utilization", utilization_, Range{.min = 0, .max = 1, .above = true},
               "share of a GPU's peak that estimates of hours assume");
    flags.real("--tokens-per-second", tokens_per_second_, at_least(0),
               "the rate that metrics.jsonl reports on the machine in question: exact hours "
               "instead; 0: not measured");
  }

  /// Before the work: what no single flag can see.
  Result<> check_price_flags(const Flags& flags) {
    std::vector<std::string> names;
    for (const auto& gpu : inspect::gpu_models()) names.emplace_back(gpu.name);
    for (auto& name : gpus_) {
      const auto* gpu = inspect::find_gpu(name);
      if (gpu != nullptr) {
        name = gpu->name;
        continue;
      }
      const auto meant = nearest(name, names);
      return usage_error(fmt::format("--gpu: '{}' is not one of {}{}", name, fmt::join(names, ", "),
                                     meant ? fmt::format("; did you mean {}?", *meant) : ""));
    }
    if (flags.given("--price") && !prices_.empty())
      return usage_error("--price is for one machine, --prices for several; give one of them");
    if (flags.given("--price") && gpus_.size() > 1)
      return usage_error("--price is for one machine, --gpu names several; give --prices");
    if (flags.given("--price") && gpus_.empty() && tokens_per_second_ == 0)
      return usage_error(
          "--price: of which machine? name it with --gpu, or give --tokens-per-second");
    if (tokens_per_second_ > 0 && gpus_.size() != 1 && !flags.given("--price") &&
        prices_.size() != 1)
      return usage_error(
          "--tokens-per-second was measured on one machine: say which with --gpu, or what it costs "
          "with --price");
    LORRY_TRY(inspect::parse_prices(prices_));
    return {};
  }

  /// Whose hours and costs are asked for; empty: nobody's.
  Result<Machines> priced_machines(const Flags& flags) const {
    LORRY_ASSIGN(Machines machines, known_prices(flags));
    if (gpus_.empty()) return machines;
    Machines chosen;
    for (const auto& name : gpus_) {
      const auto found = std::find_if(machines.begin(), machines.end(),
                                      [&](const auto& machine) { return machine.name == name; });
      chosen.push_back(found != machines.end() ? *found : inspect::PricedMachine{.name = name});
    }
    return chosen;
  }

  Result<Machines> known_prices(const Flags& flags) const {
    if (flags.given("--price"))
      return Machines{{gpus_.empty() ? inspect::kMeasuredMachine : gpus_.front(),
                       inspect::Offer{price_, "as given"}, std::nullopt}};
    if (!prices_.empty()) return inspect::parse_prices(prices_);
    if (catalog_ == "none") return Machines();
    if (!catalog_.empty()) return inspect::read_catalog(catalog_);
    const std::string catalog = inspect::find_catalog();
    if (catalog.empty()) return Machines();
    auto machines = inspect::read_catalog(catalog);
    if (machines.ok()) return machines;
    log::warn("no prices: {}", machines.error().message);  // nobody has asked for them
    return Machines();
  }

  std::vector<std::string> gpus_;
  std::vector<std::pair<std::string, std::string>> prices_;
  std::string catalog_;
  double price_ = 0, utilization_ = inspect::Job().utilization, tokens_per_second_ = 0;
  train::TrainOptions options_;
  int64_t memory_ = stages::ShardWorkOptions().memory;
};

}  // namespace

std::unique_ptr<Command> make_plan() { return std::make_unique<Plan>(); }

}  // namespace lorry::cli
