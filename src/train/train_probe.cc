// Trains from the command line without the rest of the program, for tests/test_train.py.
// usage: lorry_train_probe KEY=VALUE ...   keys are TrainOptions' fields
#include <fmt/format.h>

#include <cstdio>
#include <functional>
#include <map>
#include <string>

#include "base/cancel.h"
#include "base/log.h"
#include "train/train.h"

namespace {

using lorry::train::TrainOptions;

/// Setters by key.
std::map<std::string, std::function<void(const std::string&)>> setters(TrainOptions& o) {
  const auto text = [](std::string& to) { return [&to](const std::string& v) { to = v; }; };
  const auto real = [](double& to) { return [&to](const std::string& v) { to = std::stod(v); }; };
  const auto whole = [](auto& to) { return [&to](const std::string& v) { to = std::stoll(v); }; };
  const auto flag = [](bool& to) { return [&to](const std::string& v) { to = v == "1"; }; };
  return {{"bucket", text(o.bucket)},
          {"dataset", text(o.dataset)},
          {"model", text(o.model)},
          {"learning_rate", real(o.learning_rate)},
          {"lr_scheduler_type", text(o.lr_scheduler_type)},
          {"warmup_steps", whole(o.warmup_steps)},
          {"weight_decay", real(o.weight_decay)},
          {"max_grad_norm", real(o.max_grad_norm)},
          {"batch_size", whole(o.batch_size)},
          {"gradient_accumulation_steps", whole(o.gradient_accumulation_steps)},
          {"max_steps", whole(o.max_steps)},
          {"epochs", real(o.epochs)},
          {"max_length", whole(o.max_length)},
          {"packing", flag(o.packing)},
          {"shuffle", flag(o.shuffle)},
          {"seed", whole(o.seed)},
          {"full", flag(o.full)},
          {"lora_r", whole(o.lora_r)},
          {"lora_alpha", real(o.lora_alpha)},
          {"lora_dropout", real(o.lora_dropout)},
          {"target_modules", [&o](const std::string& v) { o.target_modules.push_back(v); }},
          {"adapter", text(o.adapter)},
          {"dtype", text(o.dtype)},
          {"device", text(o.device)},
          {"save_steps", whole(o.save_steps)},
          {"save_seconds", real(o.save_seconds)},
          {"fresh", flag(o.fresh)}};
}

}  // namespace

int main(int argc, char** argv) {
  lorry::install_cancel_handlers();
  TrainOptions options;
  const auto set = setters(options);
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    const auto found = set.find(argument.substr(0, equals));
    if (equals == std::string::npos || found == set.end()) {
      lorry::log::error("unknown argument {}", argument);
      return 2;
    }
    found->second(argument.substr(equals + 1));
  }
  const auto report = lorry::train::train(options);
  if (!report.ok()) {
    lorry::log::error("{}", report.error().message);
    return report.error().kind == lorry::ErrorKind::kCancelled ? 143 : 1;
  }
  fmt::print("{{\"steps\": {}, \"tokens\": {}, \"already_done\": {}, \"seconds\": {}}}\n",
             report->steps, report->tokens, report->already_done, report->seconds);
  return 0;
}
