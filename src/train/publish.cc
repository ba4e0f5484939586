#include "train/publish.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/crc32c.h"
#include "base/log.h"
#include "base/version.h"
#include "store/checksum.h"
#include "store/layout.h"
#include "store/owner.h"
#include "train/batch.h"
#include "train/export.h"
#include "train/identity.h"
#include "train/merge_check.h"

namespace lorry::train {
namespace {

constexpr const char *kLora = "/lora_model", *kFused = "/fused";

/// Tokens to compare exports on: the first example that training had a use for.
std::vector<int64_t> check_tokens(const Inputs& inputs, int64_t max_length) {
  for (const auto& shard : inputs.shards) {
    for (int64_t i = 0; i < shard->rows(); ++i) {
      const data::TokenRow row = shard->row(i);
      if (useful_length(row, max_length) == 0) continue;
      const auto n = std::min<int64_t>(static_cast<int64_t>(row.input_ids.size()), kCheckTokens);
      return {row.input_ids.begin(), row.input_ids.begin() + n};
    }
  }
  return {0};
}

Result<> write_fused(const RunResult& r, const std::string& model_dir, const std::string& dir) {
  const store::Bucket& bucket = *r.inputs.bucket;
  if (r.adapter) return export_merged(bucket, r.inputs.spec, *r.adapter, model_dir, dir);
  return export_full(bucket, r.inputs.spec, r.trainable.names(), r.trainable.params(), model_dir,
                     dir);
}

/// Where the checkpoint is in a format that nothing can be merged into: false, with a warning.
Result<bool> write_merged(const RunResult& r, const std::string& model_dir,
                          const std::string& dir) {
  const auto written = write_fused(r, model_dir, dir);
  if (!written.ok() && r.adapter && written.error().kind == ErrorKind::kUnsupported) {
    log::warn("no merged model, lora_model alone: {}", written.error().message);
    LORRY_TRY(r.inputs.bucket->remove(dir));
    return false;
  }
  LORRY_TRY(written);
  return true;
}

/// Writes the merged model, frees what was trained, reads the merged one back and compares. nullopt
/// where there is none.
Result<std::optional<MergeCheck>> export_and_check(RunResult& r, const std::string& model_dir,
                                                   const std::string& dir) {
  const at::ScalarType dtype = r.model->dtype();
  const at::Device device = r.model->device();
  const TrainedLogits trained = run_trained(
      *r.model, r.adapter, check_tokens(r.inputs, r.options.max_length), r.inputs.spec.dtype);
  if (r.adapter) r.model.reset();  // full training exports from the weights
  LORRY_ASSIGN(const bool merged, write_merged(r, model_dir, dir));
  if (!merged) return std::optional<MergeCheck>();
  r.model.reset();
  r.adapter.reset();
  r.trainable = Trainable();
  LORRY_ASSIGN(const auto fused, model::Transformer::load(*r.inputs.bucket, dir, {dtype, device}));
  return std::optional<MergeCheck>(compare(trained, *fused));
}

/// The same after training on a quantised base. Neither the checkpoint nor the merged model need
/// fit into memory, so both answer block by block.
Result<std::optional<MergeCheck>> export_and_check_blockwise(RunResult& r,
                                                             const std::string& model_dir,
                                                             const std::string& dir) {
  const store::Bucket& bucket = *r.inputs.bucket;
  const model::LoadOptions options{.dtype = r.model->dtype(), .device = r.model->device()};
  const std::vector<int64_t> tokens = check_tokens(r.inputs, r.options.max_length);
  const at::Tensor on_quantised_base = answer(*r.model, r.adapter, tokens);
  r.model.reset();
  LORRY_ASSIGN(const bool merged, write_merged(r, model_dir, dir));
  if (!merged) return std::optional<MergeCheck>();
  LORRY_ASSIGN(auto base, model::BlockwiseModel::open(bucket, model_dir, options));
  LORRY_ASSIGN(TrainedLogits trained, run_trained(*base, r.adapter, tokens, r.inputs.spec.dtype));
  trained.on_quantised_base = on_quantised_base;
  base.reset();
  r.adapter.reset();
  r.trainable = Trainable();
  LORRY_ASSIGN(const auto fused, model::BlockwiseModel::open(bucket, dir, options));
  LORRY_ASSIGN(const MergeCheck check, compare(trained, *fused));
  return std::optional<MergeCheck>(check);
}

Json check_json(const MergeCheck& check) {
  Json json{{"relative_rms", check.gap},
            {"rounding_relative_rms", check.noise},
            {"max_abs", check.max_abs},
            {"tokens", check.tokens}};
  if (check.base_gap) json["quantised_base_relative_rms"] = *check.base_gap;
  if (check.verdict() == MergeVerdict::kDoubtful) json["doubtful"] = true;
  if (check.verdict() == MergeVerdict::kWrong) json["refused"] = true;
  return json;
}

void log_check(const MergeCheck& check, const std::string& format) {
  if (check.base_gap) {
    log::info(
        "the merged model has the checkpoint's own weights: its logits differ by {:.3g} (relative "
        "rms) from those of the {} base that was trained on",
        *check.base_gap, format);
  }
  const std::string text =
      "the merged model's logits differ from the trained ones by " + check.describe();
  if (check.verdict() == MergeVerdict::kSame) return log::info("{}", text);
  if (check.verdict() == MergeVerdict::kDoubtful) {
    log::warn("{}: more than expected; compare answers of lora_model and fused before use", text);
  }
}

Json info_json(const RunResult& r, int64_t trained_parameters, bool is_lora) {
  const RunState& s = r.state;
  Json info{{"lorry_version", kVersion},
            {"model", r.options.model},
            {"dataset", r.options.dataset},
            {"kind", is_lora ? "lora" : "full"},
            {"base_format", r.options.base_format},
            {"recompute", r.recompute},
            {"steps", s.step},
            {"epochs", s.last ? s.last->epoch : 0.0},
            {"tokens", s.tokens},
            {"target_tokens", s.targets},
            {"examples_cut", s.cut_examples},
            {"examples_without_target", s.empty_examples},
            {"last_loss", s.last ? Json(s.last->loss) : Json(nullptr)},
            {"trained_parameters", trained_parameters},
            {"identity", r.inputs.identity}};
  if (!r.options.run_name.empty()) info["run_name"] = r.options.run_name;
  for (const char* key : {"tokenizer_digest", "template_digest", "template_settings"}) {
    if (r.inputs.data_info.contains(key)) info[key] = r.inputs.data_info.at(key);
  }
  return info;
}

/// Every file of the results with its size and checksum, for `lorry verify`.
Result<Json> recorded_files(const store::Bucket& bucket, const std::string& done) {
  Json files = Json::array();
  for (const char* part : {"lora_model", "fused"}) {
    LORRY_ASSIGN(const auto objects, bucket.list(store::join_path(done, part), true));
    for (const auto& object : objects) {
      LORRY_ASSIGN(const auto sum, store::read_checksum(bucket, object.path));
      files.push_back({{"name", object.path.substr(done.size() + 1)},
                       {"bytes", sum.size},
                       {"crc32c", crc32c_hex(sum.crc32c)}});
    }
  }
  return files;
}

/// What `peft` opens as the base: the Hub's id or the directory that the model was imported from;
/// its name in the bucket means nothing elsewhere.
std::string base_name(const Json& model_info, const std::string& model) {
  const auto source = model_info.find("source");
  if (source == model_info.end() || !source->is_string()) return model;
  const std::string text = source->get<std::string>();
  constexpr std::string_view kHub = "hf://";
  if (!text.starts_with(kHub)) return text;
  return text.substr(kHub.size(), text.rfind('@') - kHub.size());
}

/// The facts that report.html lists.
Json report_facts(const Json& info) {
  Json facts = Json::object();
  for (const auto& [key, value] : info.items()) {
    if (value.is_primitive()) facts[key] = value;
  }
  for (const auto& [key, value] : info.at("identity").at("options").items()) facts[key] = value;
  return facts;
}

void log_ledger(const RunState& state) {
  if (state.empty_examples > 0) {
    log::warn("{} examples had no token to learn", state.empty_examples);
  }
}

Error another_result(const std::string& dir, const std::string& difference) {
  return invalid_input(
      fmt::format("{} holds the result of another run ({}); --run-name NAME trains beside it, and "
                  "--replace (or --fresh) in its place: it stays until the new one is published",
                  dir, difference));
}

/// metrics.jsonl of all parts; their losses go into `curve`.
Result<> join_metrics(const RunResult& r, const std::string& path, LossCurve& curve) {
  LORRY_ASSIGN(const auto writer, r.inputs.bucket->create(path));
  LORRY_TRY(r.metrics.for_each(r.state.step, [&](std::string_view lines) -> Result<> {
    LORRY_TRY(writer->write(lines));
    LORRY_ASSIGN(const auto steps, parse_metrics_lines(lines));
    for (const StepMetrics& metrics : steps) curve.add(metrics);
    return {};
  }));
  return writer->commit();
}

Error refused(const MergeCheck& check, const std::string& dir, const std::string& rest) {
  return corrupt_data(fmt::format(
      "{}: the merged model's logits differ from the trained ones by {}, so it was not published{}",
      dir, check.describe(), rest));
}

/// Writes all but info.json to `dir`, whose files it names; `wrong` says that the merged model is.
struct Exported {
  Json info;
  std::optional<MergeCheck> check;
  bool wrong() const { return check && check->verdict() == MergeVerdict::kWrong; }
};

Result<Exported> export_all(RunResult& r, const std::string& dir) {
  const store::Bucket& bucket = *r.inputs.bucket;
  const std::string model_dir = store::model_dir(r.options.model);
  const std::string lora = dir + kLora, fused = dir + kFused;
  const bool is_lora = r.adapter != nullptr;
  if (is_lora) {
    const std::string base = base_name(r.inputs.model_info, r.options.model);
    LORRY_TRY(export_adapter(bucket, *r.adapter, base, model_dir, lora));
  } else {
    LORRY_TRY(bucket.remove(lora));
  }
  Exported exported{info_json(r, r.trainable.size(), is_lora), std::nullopt};
  const bool is_dense = base_format(r.options) == ops::WeightFormat::kDense;
  LORRY_ASSIGN(exported.check, is_dense ? export_and_check(r, model_dir, fused)
                                        : export_and_check_blockwise(r, model_dir, fused));
  exported.info["merge_check"] = exported.check ? check_json(*exported.check) : Json(nullptr);
  if (exported.check) log_check(*exported.check, r.options.base_format);
  if (exported.wrong()) LORRY_TRY(bucket.remove(fused));
  if (exported.wrong() && !is_lora) return refused(*exported.check, fused, "");
  LORRY_ASSIGN(exported.info["files"], recorded_files(bucket, dir));
  LossCurve curve(r.state.step);
  LORRY_TRY(join_metrics(r, dir + "/metrics.jsonl", curve));
  const std::string run = store::run_of(r.options.dataset, r.options.run_name);
  LORRY_TRY(bucket.write(dir + "/report.html", report_html(r.options.model + " on " + run, curve,
                                                           report_facts(exported.info))));
  return exported;
}

/// Puts the files of `from` in place of the result in `to`. Stopped on the way, it leaves no
/// info.json, and the checkpoint of the last step to publish again.
Result<> replace_result(const store::Bucket& bucket, const std::string& from,
                        const std::string& to) {
  LORRY_TRY(bucket.remove(to + "/info.json"));
  for (const char* part : {kLora, kFused}) LORRY_TRY(bucket.remove(to + part));
  LORRY_ASSIGN(const auto objects, bucket.list(from, /*recursive=*/true));
  for (const store::ObjectInfo& object : objects) {
    if (object.is_directory) continue;
    LORRY_TRY(bucket.move(object.path, to + object.path.substr(from.size())));
  }
  return {};
}

}  // namespace

Result<> publish(RunResult r, store::Claim& claim) {
  const store::Bucket& bucket = *r.inputs.bucket;
  const std::string run = store::run_of(r.options.dataset, r.options.run_name);
  const std::string done = store::done_dir(r.options.model, run);
  log_ledger(r.state);
  LORRY_ASSIGN(const bool replaces, bucket.exists(done + "/info.json"));
  const std::string dir = replaces ? r.waiting_dir : done;
  LORRY_ASSIGN(const Exported exported, export_all(r, dir));
  if (replaces && exported.wrong()) {
    return refused(
        *exported.check, dir + kFused,
        fmt::format("; {} stays as it was, and {}{} answers as trained", done, dir, kLora));
  }
  LORRY_TRY(claim.confirm());
  if (replaces) {
    LORRY_TRY(replace_result(bucket, dir, done));
    LORRY_TRY(claim.confirm());
  }
  LORRY_TRY(bucket.write_info(done, exported.info));
  if (!exported.wrong()) return {};
  return refused(*exported.check, done + kFused, "; lora_model is there and answers as trained");
}

Result<std::optional<TrainReport>> find_published(const TrainOptions& options,
                                                  const Inputs& inputs) {
  const std::string dir =
      store::done_dir(options.model, store::run_of(options.dataset, options.run_name));
  LORRY_ASSIGN(const auto info, inputs.bucket->read_info(dir));
  if (!info) return std::optional<TrainReport>();
  LORRY_TRY(store::check_owner(dir, *info, options.model, options.dataset));
  if (options.fresh) return std::optional<TrainReport>();
  const Json identity = info->value("identity", Json::object());
  if (!same_run(identity, inputs.identity)) {
    if (options.replace) return std::optional<TrainReport>();
    return another_result(dir, identity_difference(identity, inputs.identity));
  }
  // Merged wrongly: the checkpoint of the last step is still there to merge again.
  const Json check = info->value("merge_check", Json::object());
  if (check.is_object() && check.value("refused", false)) return std::optional<TrainReport>();
  TrainReport report;
  report.steps = info->value("steps", int64_t{0});
  report.tokens = info->value("tokens", int64_t{0});
  if (const auto loss = info->find("last_loss"); loss != info->end() && loss->is_number()) {
    report.last_loss = loss->get<double>();
  }
  report.already_done = true;
  return std::optional<TrainReport>(report);
}

}  // namespace lorry::train
