#include "inspect/plan.h"

#include <arrow/record_batch.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "data/shard.h"
#include "engine/engine.h"
#include "stages/messages.h"
#include "stages/pretokenize.h"
#include "store/layout.h"
#include "train/schedule.h"

namespace lorry::inspect {
namespace {

/// Rows that an estimate of the tokens is made of, from as many shards.
constexpr int64_t kSampleRows = 500, kSampleShards = 4;

/// Bytes of the shards of a stage; a data set whose name goes on below the same directory is
/// another's.
Result<int64_t> shard_bytes(const store::Bucket& bucket, const std::string& dir) {
  LORRY_ASSIGN(const auto objects, bucket.list(dir, /*recursive=*/true));
  int64_t bytes = 0;
  for (const auto& object : objects) {
    const std::string_view rest = std::string_view(object.path).substr(dir.size() + 1);
    const std::string_view shard = rest.substr(0, rest.find('/'));
    if (shard.size() == rest.size() || shard.find_first_not_of("0123456789") != shard.npos)
      continue;
    bytes += object.size;
  }
  return bytes;
}

void copy(const Json& info, const char* field, Json& to) {
  if (const auto value = info.find(field); value != info.end() && value->is_number())
    to[field] = *value;
}

int64_t dropped_rows(const Json& info) {
  const Json dropped = info.value("dropped", Json(0));
  if (dropped.is_number_integer()) return dropped.get<int64_t>();
  int64_t rows = 0;
  if (dropped.is_object())
    for (const auto& [reason, count] : dropped.items()) rows += count.get<int64_t>();
  return rows;
}

Json memory_json(const train::TrainMemory& memory) {
  return {{"weights", memory.weights_bytes},      {"widened", memory.widened_bytes},
          {"training_state", memory.state_bytes}, {"activations", memory.activation_bytes},
          {"logits", memory.logits_bytes},        {"checkpoint_copy", memory.copy_bytes},
          {"total", memory.total_bytes}};
}

class Plan {
 public:
  Plan(const std::shared_ptr<store::Bucket>& bucket, const train::TrainOptions& options,
       int64_t memory)
      : bucket_(*bucket), options_(options), memory_(memory) {}

  Result<Json> make() {
    plan_ = {{"bucket", bucket_.uri()},
             {"dataset", options_.dataset},
             {"model", options_.model},
             {"stages", Json::array()}};
    LORRY_TRY(stage("import-dataset", store::raw_dir(options_.dataset)));
    LORRY_TRY(stage("standardize", store::standardized_dir(options_.dataset)));
    LORRY_TRY(stage("pretokenize", store::model_ready_dir(options_.model, options_.dataset)));
    LORRY_ASSIGN(const bool exact, tokens_are_there());
    plan_["exact"] = exact;
    if (exact) {
      LORRY_TRY(plan_training());
    } else {
      LORRY_TRY(estimate());
    }
    return std::move(plan_);
  }

 private:
  Result<> stage(const std::string& name, const std::string& dir) {
    Json row = {{"stage", name}, {"memory", memory_}};
    LORRY_ASSIGN(const auto info, bucket_.read_info(dir));
    row["state"] = info ? "done" : "missing";
    if (info) {
      for (const char* field : {"rows", "tokens", "target_tokens"}) copy(*info, field, row);
      row["dropped"] = dropped_rows(*info);
      row["shards"] = info->value("count", int64_t{-1}) + 1;
      LORRY_ASSIGN(row["bytes"], shard_bytes(bucket_, dir));
    }
    plan_["stages"].push_back(std::move(row));
    return {};
  }

  Json& stage(size_t i) { return plan_["stages"][i]; }

  Result<bool> tokens_are_there() {
    const std::string dir = store::model_ready_dir(options_.model, options_.dataset);
    LORRY_ASSIGN(const auto info, bucket_.read_info(dir));
    if (!info) return false;
    LORRY_ASSIGN(const bool stale, stages::tokens_are_stale(bucket_, *info, options_.dataset));
    if (stale) stage(2)["state"] = "stale";
    return !stale;
  }

  Result<> plan_training() {
    LORRY_ASSIGN(const auto* engine, engine::load_engine());
    LORRY_ASSIGN(const auto plan, engine->plan_training(options_));
    plan_["train"] = {{"examples", plan.examples},
                      {"rows", plan.rows},
                      {"steps", plan.steps},
                      {"tokens", plan.tokens},
                      {"cut_examples", plan.cut_examples},
                      {"longest", plan.longest},
                      {"trained_parameters", plan.trained_parameters},
                      {"flops", plan.flops},
                      {"device", plan.on_gpu ? "cuda" : "cpu"},
                      {"base_format", options_.base_format},
                      {"warnings", plan.warnings},
                      {"tokens_per_pass", plan.micro_batch_tokens},
                      {"recompute", plan.recompute},
                      {"memory", memory_json(plan.memory)},
                      {"bytes",
                       {{"checkpoint", plan.checkpoint_bytes},
                        {"adapter", plan.adapter_bytes},
                        {"fused", plan.fused_bytes}}}};
    Json& by_recompute = plan_["train"]["memory_by_recompute"] = Json::object();
    for (const auto& [name, memory] : plan.memory_by_recompute)
      by_recompute[name] = memory_json(memory);
    return {};
  }

  /// Without the tokens: what a sample of the rows says. Packing depends on every length, so its
  /// rows are a division.
  Result<> estimate() {
    if (stage(1)["state"] != "done") return {};
    LORRY_ASSIGN(const auto chat, stages::load_chat(bucket_, options_.model));
    const std::string dir = store::standardized_dir(options_.dataset);
    const int64_t shards = stage(1)["shards"];
    int64_t rows = 0, tokens = 0, targets = 0, cut = 0;
    for (int64_t i = 0; i < std::min(shards, kSampleShards); ++i) {
      const int64_t shard = i * shards / std::min(shards, kSampleShards);
      LORRY_ASSIGN(const auto stream,
                   data::ShardStream::open(bucket_, store::shard_dir(dir, shard)));
      LORRY_ASSIGN(const auto batch, stream->next());
      if (!batch) continue;
      for (int64_t row = 0; row < std::min(batch->num_rows(), kSampleRows); ++row) {
        const auto example = stages::example_from_row(data::row_to_json(*batch, row));
        if (!example.ok()) continue;
        const auto encoded = encode(*chat, *example);
        if (!encoded.ok()) continue;
        const auto size = static_cast<int64_t>(encoded->input_ids.size());
        ++rows;
        tokens += size;
        cut += std::min(size, options_.max_length);
        targets += std::count(encoded->assistant_masks.begin(), encoded->assistant_masks.end(), 1);
      }
    }
    if (rows == 0) return {};
    const double scale = stage(1)["rows"].get<double>() / static_cast<double>(rows);
    const auto all = [&](int64_t n) { return std::llround(static_cast<double>(n) * scale); };
    Json& ready = stage(2);
    ready["rows"] = stage(1)["rows"];
    ready["tokens"] = all(tokens);
    ready["target_tokens"] = all(targets);
    ready["bytes"] = all(tokens) * 5 + stage(1)["rows"].get<int64_t>() * 8;  // int32, int8, offsets
    ready["estimated"] = true;
    estimate_training(stage(1)["rows"], all(cut));
    if (targets == 0) {
      plan_["train"]["warnings"].push_back(fmt::format(
          "none of {} rows that were looked at has a token to learn; see one with lorry render",
          rows));
    }
    return {};
  }

  void estimate_training(int64_t examples, int64_t tokens) {
    const int64_t per_step = options_.batch_size * options_.gradient_accumulation_steps;
    const int64_t rows = options_.packing ? tokens / options_.max_length + 1 : examples;
    const auto steps =
        options_.max_steps > 0
            ? options_.max_steps
            : std::llround(std::ceil(options_.epochs * std::ceil(double(rows) / double(per_step))));
    plan_["train"] = {
        {"examples", examples},
        {"rows", std::min<int64_t>(steps * per_step, std::llround(double(rows) * options_.epochs))},
        {"steps", steps},
        {"tokens", std::llround(double(tokens) * double(steps * per_step) / double(rows))},
        {"warnings", Json::array()},
        {"estimated", true}};
    if (auto text = train::warm_up_warning(options_, steps); !text.empty()) {
      plan_["train"]["warnings"].push_back(std::move(text));
    }
  }

  const store::Bucket& bucket_;
  const train::TrainOptions& options_;
  const int64_t memory_;
  Json plan_;
};

std::string bytes(const Json& row, const char* field) {
  return row.contains(field) ? format_bytes(row[field].get<double>()) : "-";
}

std::string count(const Json& row, const char* field) {
  return row.contains(field) ? format_count(row[field].get<int64_t>()) : "-";
}

std::string format_training(const Json& train) {
  const bool estimated = train.value("estimated", false);
  std::string out =
      fmt::format("\ntraining{}: {} examples, {} rows, {} steps, {} tokens\n",
                  estimated ? ", about" : "", count(train, "examples"), count(train, "rows"),
                  count(train, "steps"), count(train, "tokens"));
  for (const Json& text : train["warnings"])
    out += fmt::format("  warning: {}\n", text.get<std::string>());
  if (estimated) return out + "lorry pretokenize makes the tokens, and with them exact numbers\n";
  if (train["cut_examples"] > 0)
    out += fmt::format("  {} are cut at --max-length, the longest has {} tokens\n",
                       count(train, "cut_examples"), count(train, "longest"));
  const Json& memory = train["memory"];
  const Json& stored = train["bytes"];
  const bool gpu = train["device"] == "cuda";
  const std::string format = train["base_format"];
  const std::string base = format == "dense" ? ""
                                             : fmt::format(" in {} and one matrix widened {}",
                                                           format, bytes(memory, "widened"));
  out += fmt::format(
      "  memory of the {} at most about {}: weights {}{},\n"
      "  {} trained parameters with gradients and optimiser {}, activations {} of passes of {} "
      "tokens{}\n",
      gpu ? "GPU" : "machine", bytes(memory, "total"), bytes(memory, "weights"), base,
      count(train, "trained_parameters"), bytes(memory, "training_state"),
      bytes(memory, "activations"), count(train, "tokens_per_pass"),
      gpu ? fmt::format(", logits {}", bytes(memory, "logits")) : "");
  std::string others;
  for (const auto& [name, of] : train["memory_by_recompute"].items())
    others += fmt::format("{}{} {}", others.empty() ? "" : ", ", name, bytes(of, "total"));
  out += fmt::format("  that is with --recompute {} ({})\n", train["recompute"].get<std::string>(),
                     others);
  out += fmt::format("  in the bucket: checkpoint {}, adapter {}, merged model {}\n",
                     bytes(stored, "checkpoint"), bytes(stored, "adapter"), bytes(stored, "fused"));
  return out;
}

/// What a machine must have: auto takes what fits it.
int64_t least_memory(const train::TrainPlan& plan, const train::TrainOptions& options) {
  int64_t least = plan.memory.total_bytes;
  if (options.recompute != "auto") return least;
  for (const auto& [name, memory] : plan.memory_by_recompute)
    least = std::min(least, memory.total_bytes);
  return least;
}

}  // namespace

Result<Json> make_plan(const std::shared_ptr<store::Bucket>& bucket,
                       const train::TrainOptions& options, int64_t memory) {
  return Plan(bucket, options, memory).make();
}

Result<Json> plan_costs(const Json& plan, train::TrainOptions options,
                        std::vector<PricedMachine> machines, double utilization,
                        double tokens_per_second) {
  Job job;
  job.utilization = utilization;
  job.tokens_per_second = tokens_per_second;
  if (!plan.contains("train"))
    return invalid_input(
        "there is nothing to estimate costs from; run lorry import-dataset and lorry import-model "
        "first");
  job.tokens = plan["train"]["tokens"].get<double>();
  if (!plan.value("exact", false)) return estimate_costs(std::move(machines), job);
  LORRY_ASSIGN(const auto* engine, engine::load_engine());
  options.device = "cuda";
  LORRY_ASSIGN(const auto on_gpu, engine->plan_training(options));
  options.device = "cpu";
  LORRY_ASSIGN(const auto on_cpu, engine->plan_training(options));
  job.flops = on_gpu.flops;
  job.gpu_memory = least_memory(on_gpu, options);
  job.cpu_memory = least_memory(on_cpu, options);
  return estimate_costs(std::move(machines), job);
}

std::string format_plan(const Json& plan) {
  std::string out =
      fmt::format("{} on {} in bucket {}\n\n", plan["model"].get<std::string>(),
                  plan["dataset"].get<std::string>(), plan["bucket"].get<std::string>());
  out += fmt::format("  {:<15} {:<8} {:>13} {:>9} {:>7} {:>10} {:>15} {:>10}\n", "stage", "state",
                     "rows", "dropped", "shards", "bytes", "tokens", "memory");
  for (const auto& row : plan["stages"])
    out += fmt::format("  {:<15} {:<8} {:>13} {:>9} {:>7} {:>10} {:>15} {:>10}\n",
                       row["stage"].get<std::string>(),
                       row.value("estimated", false) ? "about" : row["state"].get<std::string>(),
                       count(row, "rows"), count(row, "dropped"), count(row, "shards"),
                       bytes(row, "bytes"), count(row, "tokens"), bytes(row, "memory"));
  if (plan.contains("train")) out += format_training(plan["train"]);
  if (plan.contains("costs")) out += format_costs(plan["costs"]);
  return out;
}

}  // namespace lorry::inspect
