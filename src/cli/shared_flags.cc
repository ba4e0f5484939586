#include "cli/shared_flags.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "base/log.h"
#include "base/progress.h"
#include "inspect/names.h"
#include "net/ranges.h"
#include "store/layout.h"
#include "train/options.h"

namespace lorry::cli {

void declare_dataset(Flags& flags, std::string& target) {
  flags.bucket_name("--dataset", target, "data set in the bucket (the only one; DATASET_NAME)",
                    "DATASET_NAME");
}

void declare_model(Flags& flags, std::string& target) {
  flags.bucket_name("--model", target, "model in the bucket (the only one; MODEL_NAME)",
                    "MODEL_NAME");
}

void declare_source_flags(Flags& flags, stages::ImportDatasetOptions& options) {
  flags.text("--config", options.hub.config, "NAME",
             "which of a Hub data set's configs (the default one)");
  flags.text("--split", options.hub.split, "NAME", "which split (train, or the only one)");
  flags.integer("--shard-examples", options.shard_examples, between(1, 5e6),
                "rows a shard at most");
}

void declare_row_flags(Flags& flags, stages::ImportDatasetOptions& options) {
  flags.choice("--format", options.format,
               {"auto", "sharegpt", "messages", "openai", "alpaca", "prompt-completion", "text"},
               "how rows are understood (recognised by their columns)");
  flags.pairs("--columns", options.columns, true, "ROLE=COLUMN,...",
              "which column plays which role, e.g. prompt=question,completion=answer");
  flags.list("--ignore-columns", options.ignored, "COLUMN,...",
             "columns that play no part, whatever they are called");
  flags.pairs("--roles", options.roles, true, "NAME=ROLE,...",
              "whose turns a role's are (user, assistant, system, tool), e.g. "
              "customer=user,agent=assistant");
  flags.choice("--prefer", options.prefer, {"chosen"},
               "of preference pairs (chosen, rejected), train on these answers");
  flags.pairs("--set", options.placeholders, false, "NAME=VALUE",
              "fills {{NAME}} in the data; may be repeated");
  flags.integer("--skip-bad-rows", options.skip_bad_rows, at_least(0),
                "malformed rows to leave out and report before giving up");
}

void declare_wait(Flags& flags, bool& wait) {
  flags.toggle("--wait", wait,
               "wait while another process is at the same work, and for other nodes; off: fail at "
               "once, and leave what is missing to them");
}

void declare_run_name(Flags& flags, std::string& target, const std::string& help) {
  flags.text("--run-name", target, "NAME", help);
}

Result<> check_run_name(const std::string& name) {
  const auto fits = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
  };
  if (name.empty() || (name.front() != '.' && std::all_of(name.begin(), name.end(), fits)))
    return {};
  return usage_error(fmt::format(
      "--run-name: '{}' cannot be a run's name; letters, digits, '.', '_' and '-' make one, and it "
      "does not begin with '.'",
      name));
}

void WorkFlags::declare(Flags& flags, stages::ShardWorkOptions& options) {
  flags.integer("--rank", options.rank, at_least(0),
                "this node's number among --world-size, from 0 (SKYPILOT_NODE_RANK)",
                "SKYPILOT_NODE_RANK");
  flags.integer("--world-size", options.world_size, at_least(1),
                "nodes that share the shards (SKYPILOT_NUM_NODES); 1: all are made here",
                "SKYPILOT_NUM_NODES");
  flags.integer("--node-seconds", options.node_seconds, at_least(0),
                "after so long without a sign of a node its shards are made by the others");
  declare_limits(flags, options);
  flags.integer("--threads", threads_, between(0, 1024), "workers; 0: the machine's cores");
  flags.on("--fresh", options.fresh, "again, even if nothing changed");
}

void WorkFlags::declare_limits(Flags& flags, stages::ShardWorkOptions& options) {
  declare_wait(flags, options.wait);
  flags.text("--max-dropped", max_dropped_, "N|P%",
             "rows that may be left out for any reason, or which part, before the stage fails");
  flags.bytes("--memory", options.memory, at_least(16 << 20), "memory that the stage may hold");
}

Result<> WorkFlags::apply(const Context& context, stages::ShardWorkOptions& options) const {
  // --world-size 1 on a node takes up the work of all, whatever the node's rank.
  if (options.world_size == 1 && context.flags->origin("--rank") != "--rank") options.rank = 0;
  options.threads = static_cast<int>(threads_);
  // Buffers of the network are a part of what the stage may hold.
  net::set_transfer_memory(std::min(net::transfer_memory(), options.memory / 8));
  LORRY_ASSIGN(options.max_dropped, stages::DropLimit::parse(max_dropped_));
  return stages::check(options);
}

namespace {

/// Declares a flag for each training option that it visits.
struct DeclareFlag {
  Flags& flags;

  void operator()(const train::OptionSpec& spec, double& target) const {
    flags.real(std::string(spec.flag), target, spec.range, std::string(spec.help));
  }
  void operator()(const train::OptionSpec& spec, int64_t& target) const {
    flags.integer(std::string(spec.flag), target, spec.range, std::string(spec.help));
  }
  void operator()(const train::OptionSpec& spec, uint64_t& target) const {
    flags.unsigned_integer(std::string(spec.flag), target, std::string(spec.help));
  }
  void operator()(const train::OptionSpec& spec, bool& target) const {
    const std::string flag(spec.flag), help(spec.help);
    spec.negatable ? flags.toggle(flag, target, help) : flags.on(flag, target, help);
  }
  void operator()(const train::OptionSpec& spec, std::string& target) const {
    const std::string flag(spec.flag), help(spec.help);
    if (spec.choices.empty()) return flags.text(flag, target, std::string(spec.value_name), help);
    flags.choice(flag, target, {spec.choices.begin(), spec.choices.end()}, help);
  }
  void operator()(const train::OptionSpec& spec, std::vector<std::string>& target) const {
    flags.list(std::string(spec.flag), target, std::string(spec.value_name),
               std::string(spec.help));
  }
};

}  // namespace

void declare_train_flags(Flags& flags, train::TrainOptions& options) {
  train::visit_options(options, DeclareFlag{flags});
  flags.former_choice("--gradient-checkpointing", "--recompute", options.recompute,
                      {{"off", "none"}, {"recompute", "full"}, {"offload", "offload"}});
}

void declare_engine_flags(Flags& flags, serve::ServeOptions& options) {
  flags.integer("--max-model-len", options.max_model_len, at_least(0),
                "context in tokens; 0: the model's own");
  flags.choice("--dtype", options.dtype, {"auto", "float32", "bfloat16", "float16"},
               "type of the weights and of the arithmetic");
  flags.choice("--quantization", options.quantization, {"none", "fp8", "int8", "int4", "nf4"},
               "make the weights smaller as they are loaded: fp8 and int8, a byte each; int4 and "
               "nf4, half a byte each");
  flags.text("--device", options.device, "auto|cpu|cuda", "where to run");
}

Result<> check_device(const std::string& device) {
  const bool known = device == "auto" || device == "cpu" || device == "cuda" ||
                     (device.starts_with("cuda:") && device.size() > 5 &&
                      std::all_of(device.begin() + 5, device.end(), ::isdigit));
  if (known) return {};
  return usage_error(fmt::format("--device: '{}' is not one of auto, cpu, cuda, cuda:N", device));
}

Result<> check_train_options(const Flags& flags, train::TrainOptions& options) {
  LORRY_TRY(check_device(options.device));
  // PEFT's word for all of them.
  if (options.target_modules == std::vector<std::string>{"all-linear"})
    options.target_modules.clear();
  if (options.adapter.empty()) return {};
  if (options.full)
    return usage_error("--full trains no adapter, so it cannot start from --adapter");
  std::vector<std::string> given;
  for (const std::string& flag : train::new_adapter_flags())
    if (const auto origin = flags.origin(flag))
      given.push_back(*origin == flag ? flag : fmt::format("{} ({})", flag, *origin));
  if (!given.empty()) return train::refused_beside_adapter(given);
  return {};
}

Result<> check_adapter(const store::Bucket& bucket, const std::string& adapter) {
  std::error_code error;
  if (adapter.empty() || std::filesystem::is_directory(adapter, error)) return {};
  // A path that no bucket can hold ("/nope", "../a") is one that is not there.
  const auto exists = bucket.exists(adapter);
  if (exists.ok() && *exists) return {};
  return not_found(
      fmt::format("--adapter: there is no directory {}, here or in {}", adapter, bucket.uri()));
}

std::function<void(int64_t, int64_t)> progress_line(const std::string& stage,
                                                    const std::string& unit) {
  const auto line = std::make_shared<std::unique_ptr<Progress>>();
  return [line, stage, unit](int64_t done, int64_t total) {
    if (*line == nullptr) {
      *line = std::make_unique<Progress>(stage, unit, total);
      (*line)->set_start(done);
      return;
    }
    if (total > 0) (*line)->set_total(total);
    (*line)->set(done);
    if (total > 0 && done >= total) (*line)->finish();
  };
}

Result<> choose_served(const Context& context, bool base, const std::string& run_name,
                       serve::ServeOptions& options, const std::string& dataset_flag) {
  options.bucket = context.bucket;
  LORRY_TRY(check_device(options.device));
  LORRY_TRY(check_run_name(run_name));
  LORRY_ASSIGN(const auto bucket, context.open_bucket(false));
  const bool model_given = !options.model.empty();
  LORRY_ASSIGN(options.model, inspect::choose_served_model(*bucket, options.model, base));
  if (!model_given) log::info("model: {}", options.model);
  if (base) {
    options.dataset.clear();
    return {};
  }
  LORRY_ASSIGN(const auto trained, inspect::trained_datasets(*bucket, options.model));
  std::vector<std::string> fitting;  // of the names that were given
  for (const auto& run : trained) {
    const size_t at = std::min(run.find('@'), run.size());
    const bool named = run_name.empty() || run.substr(at) == "@" + run_name;
    if (named && (options.dataset.empty() || run.substr(0, at) == options.dataset))
      fitting.push_back(run);
  }
  // Of the runs of one data set the one without a name goes before the others.
  const bool exact = run_name.empty() && !options.dataset.empty() &&
                     std::count(fitting.begin(), fitting.end(), options.dataset) > 0;
  if (exact) return {};
  if (fitting.size() > 1)
    return usage_error(
        fmt::format("{} was trained several times; choose with {} and "
                    "--run-name (after the @): {}",
                    options.model, dataset_flag, fmt::join(fitting, ", ")));
  if (fitting.size() == 1) {
    if (options.dataset != fitting.front()) log::info("fine-tuned on: {}", fitting.front());
    options.dataset = fitting.front();
    return {};
  }
  if (options.dataset.empty() && run_name.empty()) {
    log::info("no fine-tuned {} yet: the base model alone", options.model);
    return {};
  }
  const std::string wanted =
      store::run_of(options.dataset.empty() ? "*" : options.dataset, run_name);
  return not_found(fmt::format(
      "{} is not complete in bucket {}; run lorry train first, or give --base for the base model",
      store::done_dir(options.model, wanted), bucket->uri()));
}

}  // namespace lorry::cli
