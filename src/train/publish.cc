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

namespace lorry::train {
namespace {

constexpr int64_t kCheckTokens = 256;

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

/// Reads `dir` back and compares it with what was trained.
Result<ExportCheck> check_fused(const RunResult& r, const std::string& dir) {
  const store::Bucket& bucket = *r.inputs.bucket;
  LORRY_ASSIGN(const auto fused,
               model::Transformer::load(bucket, dir, {r.model.dtype(), r.model.device()}));
  const ExportCheck check =
      compare_logits(r.model, r.adapter, *fused, check_tokens(r.inputs, r.options.max_length));
  const double allowed = std::max(allowed_relative_rms(r.inputs.spec.dtype),
                                  allowed_relative_rms(ops::dtype_name(r.model.dtype())));
  if (check.relative_rms <= allowed) return check;
  LORRY_TRY(bucket.remove(dir));
  return corrupt_data(
      fmt::format("{}: the merged model's logits are {:.3g} from the trained ones "
                  "(relative rms; {:.3g} is allowed), so it was not published; "
                  "lora_model is there",
                  dir, check.relative_rms, allowed));
}

Json info_json(const RunResult& r, const ExportCheck& check) {
  const RunState& s = r.state;
  Json info{{"lorry_version", kVersion},
            {"model", r.options.model},
            {"dataset", r.options.dataset},
            {"kind", r.adapter ? "lora" : "full"},
            {"steps", s.step},
            {"epochs", s.history.empty() ? 0.0 : s.history.back().epoch},
            {"tokens", s.tokens},
            {"target_tokens", s.targets},
            {"examples_cut", s.cut_examples},
            {"examples_without_target", s.empty_examples},
            {"last_loss", s.history.empty() ? Json(nullptr) : Json(s.history.back().loss)},
            {"trained_parameters", r.trainable.size()},
            {"identity", r.inputs.identity},
            {"merge_check",
             {{"relative_rms", check.relative_rms},
              {"max_abs", check.max_abs},
              {"tokens", check.tokens}}}};
  if (!r.options.run_name.empty()) info["run_name"] = r.options.run_name;
  for (const char* key : {"tokenizer_digest", "template_digest"}) {
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

}  // namespace

Result<> publish(const RunResult& r, store::Claim& claim) {
  const store::Bucket& bucket = *r.inputs.bucket;
  const std::string run = store::run_of(r.options.dataset, r.options.run_name);
  const std::string done = store::done_dir(r.options.model, run);
  const std::string model_dir = store::model_dir(r.options.model);
  const std::string adapter_dir = store::adapter_dir(r.options.model, run);
  const std::string fused_dir = store::fused_dir(r.options.model, run);
  log_ledger(r.state);
  LORRY_TRY(bucket.remove(done + "/info.json"));
  if (r.adapter) {
    LORRY_TRY(export_adapter(bucket, *r.adapter, r.options.model, model_dir, adapter_dir));
  } else {
    LORRY_TRY(bucket.remove(adapter_dir));
  }
  LORRY_TRY(write_fused(r, model_dir, fused_dir));
  LORRY_ASSIGN(const ExportCheck check, check_fused(r, fused_dir));
  Json info = info_json(r, check);
  LORRY_ASSIGN(info["files"], recorded_files(bucket, done));
  LORRY_TRY(bucket.write(done + "/metrics.jsonl", metrics_jsonl(r.state.history)));
  LORRY_TRY(bucket.write(done + "/report.html", report_html(r.options.model + " on " + run,
                                                            r.state.history, report_facts(info))));
  LORRY_TRY(claim.confirm());
  return bucket.write_info(done, info);
}

Result<std::optional<TrainReport>> find_published(const TrainOptions& options,
                                                  const Inputs& inputs) {
  const std::string dir =
      store::done_dir(options.model, store::run_of(options.dataset, options.run_name));
  LORRY_ASSIGN(const auto info, inputs.bucket->read_info(dir));
  if (!info) return std::optional<TrainReport>();
  LORRY_TRY(store::check_owner(dir, *info, options.model, options.dataset));
  if (options.fresh || !info->contains("identity") || info->at("identity") != inputs.identity) {
    return std::optional<TrainReport>();
  }
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
