#include "inspect/names.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "store/layout.h"

namespace lorry::inspect {
namespace {

constexpr int kMaxDepth = 5;  // parts of a name

bool is_shard_name(const std::string& name) {
  return !name.empty() &&
         std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Result<> collect(const store::Bucket& bucket, const std::string& root, const std::string& name,
                 int depth, std::vector<Entry>& entries) {
  const std::string dir = store::join_path(root, name);
  LORRY_ASSIGN(const auto children, bucket.list(dir));
  bool begun = false;
  std::vector<std::string> deeper;
  for (const auto& child : children) {
    const std::string base = child.path.substr(child.path.rfind('/') + 1);
    // Right below the root a number is a name ("2024.jsonl"), deeper it is a shard.
    if (!child.is_directory || (!name.empty() && is_shard_name(base)))
      begun = true;
    else
      deeper.push_back(base);
  }
  if (begun && !name.empty()) {
    LORRY_ASSIGN(auto info, bucket.read_info(dir));
    entries.push_back({name, std::move(info)});
  }
  if (depth >= kMaxDepth) return {};
  for (const auto& child : deeper)
    LORRY_TRY(collect(bucket, root, store::join_path(name, child), depth + 1, entries));
  return {};
}

}  // namespace

Result<std::vector<Entry>> list_entries(const store::Bucket& bucket, const std::string& root) {
  std::vector<Entry> entries;
  LORRY_TRY(collect(bucket, root, "", 0, entries));
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.name < b.name; });
  return entries;
}

Result<std::string> choose(const store::Bucket& bucket, const std::string& root,
                           const std::string& name, const std::string& what,
                           const std::string& flag) {
  std::vector<std::string> complete, partial;
  if (!name.empty()) {
    LORRY_ASSIGN(const bool there, bucket.exists(store::join_path(root, name) + "/info.json"));
    if (there) return name;
  }
  LORRY_ASSIGN(const auto entries, list_entries(bucket, root));
  for (const auto& entry : entries) (entry.info ? complete : partial).push_back(entry.name);
  const std::string import = what == "model" ? "lorry import-model" : "lorry import-dataset";
  if (!name.empty()) {
    if (std::count(partial.begin(), partial.end(), name) > 0)
      return not_found(fmt::format("the {} '{}' in bucket {} is not complete; run {} again", what,
                                   name, bucket.uri(), import));
    return not_found(fmt::format("there is no {} '{}' in bucket {}; {}", what, name, bucket.uri(),
                                 complete.empty()
                                     ? import + " brings one"
                                     : fmt::format("it has {}", fmt::join(complete, ", "))));
  }
  if (complete.size() == 1) return complete.front();
  if (complete.empty())
    return not_found(
        fmt::format("bucket {} holds no {} yet; {} brings one", bucket.uri(), what, import));
  return usage_error(fmt::format("bucket {} holds several {}s; choose with {}: {}", bucket.uri(),
                                 what, flag, fmt::join(complete, ", ")));
}

Result<std::string> choose_model(const store::Bucket& bucket, const std::string& name) {
  return choose(bucket, "models", name, "model", "--model");
}

Result<std::string> choose_dataset(const store::Bucket& bucket, const std::string& name) {
  LORRY_ASSIGN(const auto standardized, list_entries(bucket, "standardized"));
  const bool any = std::any_of(standardized.begin(), standardized.end(),
                               [](const Entry& entry) { return entry.info.has_value(); });
  return choose(bucket, any ? "standardized" : "raw", name, "data set", "--dataset");
}

Result<std::vector<std::string>> trained_datasets(const store::Bucket& bucket,
                                                  const std::string& model) {
  LORRY_ASSIGN(const auto entries, list_entries(bucket, "done/" + model));
  std::vector<std::string> names;
  for (const auto& entry : entries)
    if (entry.info) names.push_back(entry.name);
  return names;
}

Result<std::string> choose_served_model(const store::Bucket& bucket, const std::string& name,
                                        bool base) {
  auto chosen = choose_model(bucket, name);
  if (chosen.ok() || base || name.empty()) return chosen;
  LORRY_ASSIGN(const auto trained, trained_datasets(bucket, name));
  for (const std::string& dataset : trained) {
    LORRY_ASSIGN(const bool whole, bucket.exists(store::fused_dir(name, dataset) + "/config.json"));
    if (whole) return name;
  }
  return chosen;
}

namespace {

/// Directories below `dir` whose names have an '@', down to the depth of two Hub ids.
Result<> collect_runs(const store::Bucket& bucket, const std::string& root, const std::string& name,
                      int depth, std::vector<std::string>& runs) {
  LORRY_ASSIGN(const auto children, bucket.list(store::join_path(root, name)));
  for (const auto& child : children) {
    if (!child.is_directory) continue;
    const std::string base = child.path.substr(child.path.rfind('/') + 1);
    const std::string path = store::join_path(name, base);
    if (base.find('@') != std::string::npos) {
      runs.push_back(path);
    } else if (depth < kMaxDepth && base != "fused" && base != "lora_model" &&
               !base.starts_with("step-")) {
      LORRY_TRY(collect_runs(bucket, root, path, depth + 1, runs));
    }
  }
  return {};
}

}  // namespace

Result<std::vector<NamedRun>> list_named_runs(const store::Bucket& bucket,
                                              const std::string& root) {
  std::vector<std::string> paths;
  LORRY_TRY(collect_runs(bucket, root, "", 0, paths));
  if (paths.empty()) return std::vector<NamedRun>();
  LORRY_ASSIGN(const auto models, list_entries(bucket, "models"));
  std::vector<NamedRun> runs;
  for (const auto& path : paths) {
    const size_t at = path.rfind('@');
    for (const auto& model : models) {
      if (!path.starts_with(model.name + "/") || model.name.size() + 1 >= at) continue;
      const size_t begin = model.name.size() + 1;
      runs.push_back({model.name, path.substr(begin, at - begin), path.substr(at + 1)});
    }
  }
  return runs;
}

}  // namespace lorry::inspect
