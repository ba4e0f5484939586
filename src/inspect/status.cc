#include "inspect/status.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <future>
#include <map>
#include <set>
#include <vector>

#include "base/digest.h"
#include "base/progress.h"
#include "inspect/names.h"
#include "stages/pretokenize.h"
#include "store/claim.h"
#include "store/layout.h"

namespace lorry::inspect {
namespace {

constexpr char kDone[] = "done", kPartial[] = "partial", kMissing[] = "missing", kStale[] = "stale";

struct StageState {
  std::string state = kMissing;
  Json info;
};

Result<StageState> stage_state(const store::Bucket& bucket, const std::string& dir) {
  LORRY_ASSIGN(auto info, bucket.read_info(dir));
  if (info) return StageState{kDone, *std::move(info)};
  LORRY_ASSIGN(const auto children, bucket.list(dir));
  return StageState{children.empty() ? kMissing : kPartial, nullptr};
}

/// Copies numbers of info.json that are there.
void copy_fields(const Json& info, const std::vector<std::pair<std::string, std::string>>& fields,
                 Json& to) {
  if (!info.is_object()) return;
  for (const auto& [from, name] : fields)
    if (const auto value = info.find(from); value != info.end() && value->is_primitive())
      to[name] = *value;
}

/// Entries by root. The roots are listed side by side: a remote bucket tells of a thousand shards a
/// request.
using Listings = std::map<std::string, std::vector<Entry>>;
Result<Listings> list_roots(const store::Bucket& bucket) {
  std::map<std::string, std::future<Result<std::vector<Entry>>>> tasks;
  for (const char* root : {"raw", "standardized", "models"})
    tasks[root] = std::async(std::launch::async, list_entries, std::cref(bucket), root);
  Listings listings;
  for (auto& [root, task] : tasks) {
    LORRY_ASSIGN(listings[root], task.get());
  }
  return listings;
}

Json dataset_status(const Listings& listings) {
  std::map<std::string, Json> by_name;
  for (const char* root : {"raw", "standardized"}) {
    for (const auto& entry : listings.at(root)) {
      Json& row = by_name[entry.name];
      if (row.is_null())
        row = {{"name", entry.name}, {"raw", kMissing}, {"standardized", kMissing}};
      row[root] = entry.info ? kDone : kPartial;
      if (entry.info) copy_fields(*entry.info, {{"rows", "rows"}, {"format", "format"}}, row);
    }
  }
  Json rows = Json::array();
  for (auto& [name, row] : by_name) rows.push_back(std::move(row));
  return rows;
}

Json model_status(const std::vector<Entry>& models) {
  Json rows = Json::array();
  for (const auto& entry : models) {
    Json row = {{"name", entry.name}, {"state", entry.info ? kDone : kPartial}};
    if (entry.info)
      copy_fields(*entry.info, {{"architecture", "architecture"}, {"bytes", "bytes"}}, row);
    rows.push_back(std::move(row));
  }
  return rows;
}

/// Names of runs by model and data set: of those that are done, and of those that have begun.
using NamedRuns = std::map<std::pair<std::string, std::string>, std::set<std::string>>;
Result<NamedRuns> named_runs(const store::Bucket& bucket) {
  NamedRuns runs;
  for (const char* root : {"done", "checkpoints"}) {
    LORRY_ASSIGN(const auto places, list_named_runs(bucket, root));
    for (const auto& run : places) runs[{run.model, run.dataset}].insert(run.run_name);
  }
  return runs;
}

Result<Json> run_status(const store::Bucket& bucket, const std::string& model,
                        const std::string& dataset, const std::string& run_name) {
  const std::string run = store::run_of(dataset, run_name);
  LORRY_ASSIGN(auto tokens, stage_state(bucket, store::model_ready_dir(model, dataset)));
  LORRY_ASSIGN(auto trained, stage_state(bucket, store::done_dir(model, run)));
  if (trained.state == kMissing) {
    LORRY_ASSIGN(const auto checkpoints, bucket.list(store::checkpoints_dir(model, run)));
    if (!checkpoints.empty()) trained.state = kPartial;
  }
  if (tokens.state == kDone) {
    LORRY_ASSIGN(const bool stale, stages::tokens_are_stale(bucket, tokens.info, dataset));
    if (stale) tokens.state = kStale;
    const Json identity =
        trained.info.is_object() ? trained.info.value("identity", Json::object()) : Json::object();
    const bool same_data = !identity.is_object() || !identity.contains("data") ||
                           identity["data"] == sha256_hex(dump_json(tokens.info));
    if (trained.state == kDone && (stale || !same_data)) trained.state = kStale;
  }
  Json row = {{"model", model},
              {"dataset", dataset},
              {"pretokenize", tokens.state},
              {"train", trained.state}};
  if (!run_name.empty()) row["run_name"] = run_name;
  copy_fields(tokens.info,
              {{"rows", "rows"}, {"tokens", "tokens"}, {"target_tokens", "target_tokens"}}, row);
  copy_fields(trained.info, {{"steps", "steps"}, {"last_loss", "loss"}, {"loss", "loss"}}, row);
  const std::string verb = tokens.state != kDone    ? "pretokenize"
                           : trained.state != kDone ? "train"
                                                    : "serve";
  row["next"] =
      fmt::format("lorry {} --model {} --dataset {}{}{}", verb, model, dataset,
                  run_name.empty() || tokens.state != kDone ? "" : " --run-name " + run_name,
                  // The result of other tokens is in its way.
                  tokens.state == kDone && trained.state == kStale ? " --replace" : "");
  return row;
}

std::string count_or_dash(const Json& row, const char* field) {
  const auto value = row.find(field);
  if (value == row.end() || !value->is_number()) return "-";
  if (value->is_number_float()) return fmt::format("{:.4f}", value->get<double>());
  return format_count(value->get<int64_t>());
}

/// Columns as wide as their widest cell; numbers stand to the right.
std::string table(const std::vector<std::string>& head,
                  const std::vector<std::vector<std::string>>& rows, size_t first_number) {
  std::vector<size_t> width(head.size());
  for (size_t i = 0; i < head.size(); ++i) {
    width[i] = head[i].size();
    for (const auto& row : rows) width[i] = std::max(width[i], row[i].size());
  }
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text = " ";
    for (size_t i = 0; i < cells.size(); ++i)
      text += i >= first_number ? fmt::format(" {:>{}}", cells[i], width[i])
                                : fmt::format(" {:<{}}", cells[i], width[i]);
    out += text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  };
  line(head);
  for (const auto& row : rows) line(row);
  return out;
}

/// Who is at work, or waits for it.
std::string format_at_work(const Json& claims) {
  if (claims.empty()) return {};
  std::vector<std::vector<std::string>> rows;
  for (const auto& claim : claims) {
    std::string verb = claim["verb"].get<std::string>();
    if (claim["world_size"] > 1)
      verb += fmt::format(" ({} of {})", claim["rank"].get<int64_t>(),
                          claim["world_size"].get<int64_t>());
    if (claim["state"] != "held") verb += ", waits";
    rows.push_back({claim["writes"], verb, claim["host"],
                    std::to_string(claim["pid"].get<int64_t>()),
                    claim["since"].get<std::string>() + " UTC",
                    fmt::format("{} s ago", claim["last_seen_seconds"].get<int64_t>())});
  }
  return "\n" + table({"at work on", "verb", "host", "process", "since", "last seen"}, rows, 6);
}

}  // namespace

Result<Json> read_status(const store::Bucket& bucket) {
  Json status = {{"bucket", bucket.uri()}};
  auto claims = std::async(std::launch::async, store::list_claimants, std::cref(bucket));
  LORRY_ASSIGN(const auto listings, list_roots(bucket));
  status["datasets"] = dataset_status(listings);
  status["models"] = model_status(listings.at("models"));
  status["runs"] = Json::array();
  LORRY_ASSIGN(auto runs, named_runs(bucket));
  for (const auto& model : status["models"]) {
    for (const auto& dataset : status["datasets"]) {
      if (model["state"] != kDone || dataset["standardized"] != kDone) continue;
      LORRY_ASSIGN(Json row, run_status(bucket, model["name"], dataset["name"], ""));
      status["runs"].push_back(std::move(row));
      for (const auto& run : runs[{model["name"], dataset["name"]}]) {
        LORRY_ASSIGN(Json named, run_status(bucket, model["name"], dataset["name"], run));
        status["runs"].push_back(std::move(named));
      }
    }
  }
  status["at_work"] = Json::array();
  LORRY_ASSIGN(const auto claimants, claims.get());
  for (const auto& claimant : claimants) status["at_work"].push_back(to_json(claimant));
  return status;
}

std::string format_status(const Json& status) {
  std::string out = fmt::format("bucket {}\n", status["bucket"].get<std::string>());
  const auto text = [](const Json& row, const char* field) {
    return row.contains(field) && row[field].is_string() ? row[field].get<std::string>()
                                                         : std::string("-");
  };
  std::vector<std::vector<std::string>> rows;
  for (const auto& row : status["datasets"])
    rows.push_back({text(row, "name"), text(row, "raw"), text(row, "standardized"),
                    count_or_dash(row, "rows")});
  out += rows.empty() ? "\nno data sets yet: lorry import-dataset brings one\n"
                      : "\n" + table({"data set", "raw", "standardized", "rows"}, rows, 3);
  rows.clear();
  for (const auto& row : status["models"])
    rows.push_back({text(row, "name"), text(row, "state"), text(row, "architecture"),
                    row.contains("bytes") ? format_bytes(row["bytes"].get<double>()) : "-"});
  out += rows.empty() ? "\nno models yet: lorry import-model brings one\n"
                      : "\n" + table({"model", "import", "architecture", "size"}, rows, 3);
  const std::string at_work = format_at_work(status["at_work"]);
  if (status["runs"].empty()) return out + at_work;
  rows.clear();
  for (const auto& row : status["runs"])
    rows.push_back(
        {text(row, "model"), store::run_of(text(row, "dataset"), row.value("run_name", "")),
         text(row, "pretokenize"), text(row, "train"), count_or_dash(row, "rows"),
         count_or_dash(row, "tokens"), count_or_dash(row, "steps"), count_or_dash(row, "loss")});
  out +=
      "\n" + table({"model", "data set", "pretokenize", "train", "rows", "tokens", "steps", "loss"},
                   rows, 4);
  if (status["runs"].size() == 1 && at_work.empty())
    out += "\nnext: " + text(status["runs"][0], "next") + "\n";
  return out + at_work;
}

}  // namespace lorry::inspect
