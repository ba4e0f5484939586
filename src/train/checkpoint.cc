#include "train/checkpoint.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/version.h"
#include "train/identity.h"

namespace lorry::train {
namespace {

constexpr int kFormat = 1;

Json state_json(const RunState& state, const Json& identity) {
  return Json{{"format", kFormat},
              {"lorry_version", kVersion},
              {"identity", identity},
              {"step", state.step},
              {"schedule_step", state.schedule_step},
              {"cursor",
               {{"epoch", state.cursor.epoch},
                {"position", state.cursor.position},
                {"bin", state.cursor.bin},
                {"rows", state.cursor.rows}}},
              {"tokens", state.tokens},
              {"targets", state.targets},
              {"cut_examples", state.cut_examples},
              {"empty_examples", state.empty_examples},
              {"loss_scale", state.loss_scale},
              {"loss_scale_good_steps", state.loss_scale_good_steps}};
}

RunState parse_state(const Json& json) {
  RunState state;
  const auto number = [](const Json& object, const char* key) {
    return object.at(key).get<int64_t>();
  };
  state.step = number(json, "step");
  state.schedule_step = number(json, "schedule_step");
  const Json& cursor = json.at("cursor");
  state.cursor = {number(cursor, "epoch"), number(cursor, "position"), number(cursor, "bin"),
                  number(cursor, "rows")};
  state.tokens = number(json, "tokens");
  state.targets = number(json, "targets");
  state.cut_examples = number(json, "cut_examples");
  state.empty_examples = number(json, "empty_examples");
  state.loss_scale = json.at("loss_scale").get<double>();
  state.loss_scale_good_steps = number(json, "loss_scale_good_steps");
  return state;
}

Result<std::vector<StepMetrics>> parse_history(std::string_view lines) {
  std::vector<StepMetrics> history;
  while (!lines.empty()) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    LORRY_ASSIGN(auto metrics, parse_metrics_line(lines.substr(0, end)));
    history.push_back(metrics);
    lines.remove_prefix(std::min(end + 1, lines.size()));
  }
  return history;
}

}  // namespace

std::string metrics_jsonl(const std::vector<StepMetrics>& history) {
  std::string lines;
  for (const StepMetrics& metrics : history) lines += metrics_line(metrics) + "\n";
  return lines;
}

CheckpointStore::CheckpointStore(store::Claim& claim, std::string dir, Json identity)
    : claim_(claim),
      bucket_(claim.bucket()),
      dir_(std::move(dir)),
      identity_(std::move(identity)) {}

Result<std::optional<CheckpointStore::Found>> CheckpointStore::find(std::string& stale) {
  const std::string latest = dir_ + "/latest.json";
  LORRY_ASSIGN(const bool exists, bucket_->exists(latest));
  if (!exists) return std::optional<Found>();
  LORRY_ASSIGN(const std::string text, bucket_->read(latest));
  LORRY_ASSIGN(const Json committed, parse_json(text, latest));
  try {
    const auto name = committed.at("directory").get<std::string>();
    const std::string dir = dir_ + "/" + name;
    LORRY_ASSIGN(const std::string state_text, bucket_->read(dir + "/state.json"));
    LORRY_ASSIGN(const Json json, parse_json(state_text, dir + "/state.json"));
    if (json.at("format") != kFormat) return refuse("a checkpoint of another version of lorry");
    const Json& identity = json.at("identity");
    if (!same_inputs(identity, identity_)) {
      stale = identity_difference(identity, identity_);
      stale_ = name;
      return std::optional<Found>();
    }
    if (!same_run(identity, identity_)) {
      return refuse(fmt::format("step {} of a run with other options ({})",
                                json.at("step").get<int64_t>(),
                                identity_difference(identity, identity_)));
    }
    Found found{dir, parse_state(json)};
    LORRY_ASSIGN(const std::string lines, bucket_->read(dir + "/metrics.jsonl"));
    LORRY_ASSIGN(found.state.history, parse_history(lines));
    return std::optional<Found>(std::move(found));
  } catch (const nlohmann::json::exception& e) {
    return corrupt_data(
        fmt::format("{}: {}; remove the directory to train from the start", dir_, e.what()));
  }
}

Result<> CheckpointStore::load(const Found& found, Trainable& trainable, AdamW& optimizer) const {
  const at::NoGradGuard no_grad;
  LORRY_ASSIGN(const auto params, model::SafetensorsReader::open(*bucket_, found.dir, "params"));
  for (size_t i = 0; i < trainable.names().size(); ++i) {
    const std::string& name = trainable.names()[i];
    LORRY_ASSIGN(const at::Tensor stored, params->tensor(name));
    at::Tensor param = trainable.params()[i];
    if (stored.sizes() != param.sizes() || stored.scalar_type() != at::kFloat) {
      return corrupt_data(
          fmt::format("{}: {} has another shape than the model; remove {} to train "
                      "from the start",
                      found.dir, name, dir_));
    }
    param.copy_(stored);
  }
  trainable.write_back();
  LORRY_ASSIGN(const auto states, model::SafetensorsReader::open(*bucket_, found.dir, "optimizer"));
  return optimizer.load_state(*states, trainable.names());
}

Result<> CheckpointStore::save(const RunState& state, const Trainable& trainable,
                               const AdamW& optimizer) {
  std::string name = fmt::format("step-{:06}", state.step);
  if (name == stale_) name += "-1";  // what is committed is not written over
  const std::string dir = dir_ + "/" + name;
  model::NamedTensors params;
  for (size_t i = 0; i < trainable.names().size(); ++i) {
    params.emplace_back(trainable.names()[i], trainable.params()[i].detach());
  }
  LORRY_TRY(model::write_safetensors(*bucket_, dir + "/params.safetensors", params));
  LORRY_TRY(model::write_safetensors(*bucket_, dir + "/optimizer.safetensors",
                                     optimizer.state(trainable.names())));
  LORRY_TRY(bucket_->write(dir + "/metrics.jsonl", metrics_jsonl(state.history)));
  LORRY_TRY(bucket_->write(dir + "/state.json", dump_json(state_json(state, identity_), 2)));
  LORRY_TRY(claim_.confirm());
  const Json latest{{"format", kFormat}, {"directory", name}, {"step", state.step}};
  LORRY_TRY(bucket_->write(dir_ + "/latest.json", dump_json(latest, 2)));
  return remove_others(name);
}

Error CheckpointStore::refuse(const std::string& what) const {
  return invalid_input(
      fmt::format("{} holds {}; give the options it was made with to go on from there, "
                  "--run-name to train beside it, or --fresh to start over",
                  dir_, what));
}

Result<> CheckpointStore::remove_others(const std::string& keep) {
  LORRY_ASSIGN(const auto entries, bucket_->list(dir_));
  for (const store::ObjectInfo& entry : entries) {
    const std::string name = entry.path.substr(entry.path.rfind('/') + 1);
    if (entry.is_directory && name.starts_with("step-") && name != keep) {
      LORRY_TRY(bucket_->remove(entry.path));
    }
  }
  return {};
}

Result<> CheckpointStore::clear() {
  // The commit mark goes first, so that what is left never looks whole.
  LORRY_TRY(bucket_->remove(dir_ + "/latest.json"));
  return bucket_->remove(dir_);
}

}  // namespace lorry::train
