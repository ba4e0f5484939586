// Trains from the command line without the rest of the program, for tests/test_train.py.
// usage: lorry_train_probe [plan] KEY=VALUE ...   keys are TrainOptions' fields
#include <fmt/format.h>

#include <cstdio>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/cancel.h"
#include "base/json.h"
#include "base/log.h"
#include "train/options.h"
#include "train/plan.h"
#include "train/train.h"

namespace {

using lorry::train::TrainOptions;

using Setters = std::map<std::string, std::function<void(const std::string&)>>;

/// Adds a setter for each option it visits.
struct AddSetter {
  Setters& setters;

  void operator()(const auto& spec, bool& to) const {
    setters[spec.key()] = [&to](const std::string& v) { to = v == "1"; };
  }
  void operator()(const auto& spec, double& to) const {
    setters[spec.key()] = [&to](const std::string& v) { to = std::stod(v); };
  }
  void operator()(const auto& spec, int64_t& to) const {
    setters[spec.key()] = [&to](const std::string& v) { to = std::stoll(v); };
  }
  void operator()(const auto& spec, uint64_t& to) const {
    setters[spec.key()] = [&to](const std::string& v) { to = std::stoull(v); };
  }
  void operator()(const auto& spec, std::string& to) const {
    setters[spec.key()] = [&to](const std::string& v) { to = v; };
  }
  void operator()(const auto& spec, std::vector<std::string>& to) const {
    setters[spec.key()] = [&to](const std::string& v) { to.push_back(v); };
  }
};

Setters setters(TrainOptions& o) {
  const auto text = [](std::string& to) { return [&to](const std::string& v) { to = v; }; };
  Setters setters{{"bucket", text(o.bucket)},
                  {"dataset", text(o.dataset)},
                  {"model", text(o.model)},
                  {"run_name", text(o.run_name)}};
  lorry::train::visit_options(o, AddSetter{setters});
  return setters;
}

int print_plan(const TrainOptions& options) {
  const auto plan = lorry::train::plan_training(options);
  if (!plan.ok()) {
    lorry::log::error("{}", plan.error().message);
    return 1;
  }
  lorry::Json memory = {{"recompute", plan->recompute}, {"memory", plan->memory.total_bytes}};
  for (const auto& [name, of] : plan->memory_by_recompute) memory[name] = of.total_bytes;
  fmt::print("{}\n", lorry::dump_json(memory));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  lorry::install_cancel_handlers();
  TrainOptions options;
  const auto set = setters(options);
  const bool plan = argc > 1 && std::string_view(argv[1]) == "plan";
  for (int i = plan ? 2 : 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    const auto found = set.find(argument.substr(0, equals));
    if (equals == std::string::npos || found == set.end()) {
      lorry::log::error("unknown argument {}", argument);
      return 2;
    }
    found->second(argument.substr(equals + 1));
  }
  if (plan) return print_plan(options);
  const auto report = lorry::train::train(options);
  if (!report.ok()) {
    lorry::log::error("{}", report.error().message);
    return report.error().kind == lorry::ErrorKind::kCancelled ? 143 : 1;
  }
  fmt::print("{{\"steps\": {}, \"tokens\": {}, \"already_done\": {}, \"seconds\": {}}}\n",
             report->steps, report->tokens, report->already_done, report->seconds);
  return 0;
}
