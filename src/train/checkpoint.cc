#include "train/checkpoint.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/version.h"
#include "train/identity.h"

namespace lorry::train {
namespace {

constexpr int kFormat = 2, kOldFormat = 1;
constexpr const char* kMetrics = "metrics";

std::string metrics_name(const Json& state) { return state.value("metrics", kMetrics); }

Json state_json(const RunState& state, const Json& identity, const std::string& metrics) {
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
              {"loss_scale_good_steps", state.loss_scale_good_steps},
              {"metrics", metrics},
              {"last", state.last ? Json(metrics_line(*state.last)) : Json(nullptr)}};
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

/// The directory's name in latest.json's own directory.
std::string last_part(const std::string& path) { return path.substr(path.rfind('/') + 1); }

/// Copies that training does not change, on the host.
model::NamedTensors copied(const model::NamedTensors& tensors) {
  model::NamedTensors copies;
  for (const auto& [name, tensor] : tensors) {
    copies.emplace_back(name, tensor.to(at::kCPU, tensor.scalar_type(), /*non_blocking=*/false,
                                        /*copy=*/true));
  }
  return copies;
}

int64_t bytes_on_host(const model::NamedTensors& tensors) {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : tensors) {
    if (tensor.is_cpu()) bytes += static_cast<int64_t>(tensor.nbytes());
  }
  return bytes;
}

}  // namespace

/// What one checkpoint writes.
struct CheckpointStore::Record {
  RunState state;
  std::string lines;  // of the steps after first_step
  int64_t first_step = 0;
  model::NamedTensors params, optimizer;
};

CheckpointStore::CheckpointStore(store::Claim& claim, std::string dir, Json identity)
    : claim_(claim),
      bucket_(claim.bucket()),
      dir_(std::move(dir)),
      identity_(std::move(identity)),
      metrics_(bucket_, dir_ + "/" + kMetrics) {}

CheckpointStore::~CheckpointStore() {
  if (writing_.valid()) writing_.wait();
}

Result<std::optional<CheckpointStore::Found>> CheckpointStore::find(std::string& other) {
  const std::string latest = dir_ + "/latest.json";
  LORRY_ASSIGN(const bool exists, bucket_->exists(latest));
  if (!exists) return std::optional<Found>();
  LORRY_ASSIGN(const std::string text, bucket_->read(latest));
  LORRY_ASSIGN(const Json committed, parse_json(text, latest));
  try {
    return open(committed, other);
  } catch (const nlohmann::json::exception& e) {
    return corrupt_data(
        fmt::format("{}: {}; remove the directory to train from the start", dir_, e.what()));
  }
}

Result<std::optional<CheckpointStore::Found>> CheckpointStore::open(const Json& committed,
                                                                    std::string& other) {
  const auto name = committed.at("directory").get<std::string>();
  const std::string dir = dir_ + "/" + name;
  LORRY_ASSIGN(const std::string text, bucket_->read(dir + "/state.json"));
  LORRY_ASSIGN(const Json json, parse_json(text, dir + "/state.json"));
  committed_ = name;
  const bool is_old = json.at("format") == kOldFormat;
  if (!is_old && json.at("format") != kFormat) {
    other = "a checkpoint of another version of lorry";
    LORRY_TRY(keep_apart(json));
    return std::optional<Found>();
  }
  const Json& identity = json.at("identity");
  if (!same_run(identity, identity_)) {
    other = fmt::format("step {} of another run ({})", json.at("step").get<int64_t>(),
                        identity_difference(identity, identity_));
    LORRY_TRY(keep_apart(json));
    return std::optional<Found>();
  }
  Found found{dir, parse_state(json), is_old};
  metrics_ = MetricsParts(bucket_, dir_ + "/" + metrics_name(json));
  if (is_old) {
    LORRY_ASSIGN(const std::string lines, bucket_->read(dir + "/metrics.jsonl"));
    LORRY_ASSIGN(found.state.pending, parse_metrics_lines(lines));
    if (!found.state.pending.empty()) found.state.last = found.state.pending.back();
    LORRY_TRY(metrics_.remove_after(0));
  } else {
    if (const Json& last = json.at("last"); last.is_string()) {
      LORRY_ASSIGN(found.state.last, parse_metrics_line(last.get_ref<const std::string&>()));
    }
    LORRY_TRY(metrics_.remove_after(found.state.step));
  }
  return std::optional<Found>(std::move(found));
}

/// Lines of this run go to another directory than those of the run in `state`.
Result<> CheckpointStore::keep_apart(const Json& state) {
  const std::string other = metrics_name(state) == kMetrics ? "metrics-1" : kMetrics;
  metrics_ = MetricsParts(bucket_, dir_ + "/" + other);
  return metrics_.remove_after(0);
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
  return optimizer.load_state(*states);
}

Result<> CheckpointStore::save(RunState& state, const Trainable& trainable,
                               const AdamW& optimizer) {
  LORRY_TRY(wait());
  auto record = std::make_shared<Record>();
  record->first_step = state.step - static_cast<int64_t>(state.pending.size());
  for (const StepMetrics& metrics : std::exchange(state.pending, {})) {
    record->lines += metrics_line(metrics) + "\n";
  }
  record->state = state;
  for (size_t i = 0; i < trainable.names().size(); ++i) {
    record->params.emplace_back(trainable.names()[i], trainable.params()[i].detach());
  }
  record->optimizer = optimizer.state();
  if (bytes_on_host(record->params) + bytes_on_host(record->optimizer) > kMaxHostCopy) {
    return write(*record).with_context("saving a checkpoint");
  }
  record->params = copied(record->params);
  record->optimizer = copied(record->optimizer);
  writing_ = std::async(std::launch::async, [this, record]() -> Result<> {
    try {
      return write(*record);
    } catch (const std::exception& e) {
      return unavailable(e.what());
    }
  });
  return {};
}

Result<> CheckpointStore::write(const Record& record) {
  const RunState& state = record.state;
  std::string name = fmt::format("step-{:06}", state.step);
  if (name == committed_) name += "-1";
  const std::string dir = dir_ + "/" + name;
  LORRY_TRY(model::write_safetensors(*bucket_, dir + "/params.safetensors", record.params));
  LORRY_TRY(model::write_safetensors(*bucket_, dir + "/optimizer.safetensors", record.optimizer));
  LORRY_TRY(metrics_.write(record.first_step, state.step, record.lines));
  LORRY_TRY(bucket_->write(dir + "/state.json",
                           dump_json(state_json(state, identity_, last_part(metrics_.dir())), 2)));
  LORRY_TRY(claim_.confirm());
  const Json latest{{"format", kFormat}, {"directory", name}, {"step", state.step}};
  LORRY_TRY(bucket_->write(dir_ + "/latest.json", dump_json(latest, 2)));
  committed_ = name;
  return remove_others(name);
}

Result<> CheckpointStore::check() {
  using std::chrono::seconds;
  if (!writing_.valid() || writing_.wait_for(seconds(0)) != std::future_status::ready) return {};
  return wait();
}

Result<> CheckpointStore::wait() {
  if (!writing_.valid()) return {};
  return writing_.get().with_context("saving a checkpoint");
}

Result<> CheckpointStore::remove_others(const std::string& keep) {
  LORRY_ASSIGN(const auto entries, bucket_->list(dir_));
  for (const store::ObjectInfo& entry : entries) {
    const std::string name = last_part(entry.path);
    const bool is_record = name.starts_with("step-") && name != keep;
    const bool is_metrics = name.starts_with(kMetrics) && name != last_part(metrics_.dir());
    if (entry.is_directory && (is_record || is_metrics)) LORRY_TRY(bucket_->remove(entry.path));
  }
  return {};
}

Result<> CheckpointStore::clear() {
  LORRY_TRY(wait());
  committed_.clear();
  // The commit mark goes first, so that what is left never looks whole.
  LORRY_TRY(bucket_->remove(dir_ + "/latest.json"));
  return bucket_->remove(dir_);
}

}  // namespace lorry::train
