#include "inspect/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/crc32c.h"
#include "base/digest.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "data/shard.h"
#include "inspect/names.h"
#include "store/checksum.h"
#include "store/claim.h"
#include "store/layout.h"

namespace lorry::inspect {
namespace {

constexpr int kThreads = 8;

/// One file and what its manifest says of it.
struct Recorded {
  std::string path;
  std::optional<int64_t> size = std::nullopt;
  std::optional<uint32_t> crc32c = std::nullopt;
  std::string sha256 = {};
  size_t part = 0;  ///< index into Verification::parts_
};

/// What is made again as one: a shard, a model, a trained result. `marks` are the objects that say
/// it is complete.
struct Part {
  std::vector<std::string> marks;
  std::string mend;
};

std::optional<int64_t> number(const Json& json, const char* key) {
  const auto it = json.find(key);
  if (it == json.end() || !it->is_number_integer()) return std::nullopt;
  return it->get<int64_t>();
}

std::string text(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_string() ? it->get<std::string>() : std::string();
}

std::optional<uint32_t> checksum(const Json& json) {
  const std::string hex = text(json, "crc32c");
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), value, 16);
  if (hex.size() != 8 || error != std::errc() || end != hex.data() + 8) return std::nullopt;
  return value;
}

class Verification {
 public:
  explicit Verification(const VerifyOptions& options)
      : options_(options),
        bucket_(*options.bucket),
        threads_(options.threads > 0 ? options.threads : kThreads) {}

  Result<VerifyReport> run() {
    LORRY_TRY(collect());
    for (const auto& file : files_) bytes_total_ += file.size.value_or(0);
    LORRY_TRY(in_parallel(int64_t(files_.size()), threads_,
                          [this](int64_t i) { return check(files_[size_t(i)]); }));
    std::sort(report_.damages.begin(), report_.damages.end(),
              [](const Damage& a, const Damage& b) { return a.path < b.path; });
    if (options_.repair) LORRY_TRY(remove_marks());
    return report_;
  }

 private:
  bool wanted(const std::string& name, const std::string& filter) const {
    return filter.empty() || name == filter;
  }

  Result<> collect() {
    LORRY_ASSIGN(const auto models, list_entries(bucket_, "models"));
    for (const char* stage : {"raw", "standardized"}) {
      LORRY_ASSIGN(const auto entries, list_entries(bucket_, stage));
      for (const auto& entry : entries) {
        if (!wanted(entry.name, options_.dataset)) continue;
        const bool raw = std::string_view(stage) == "raw";
        LORRY_TRY(add_shards(store::join_path(stage, entry.name), entry.info,
                             raw ? import_command(entry)
                                 : fmt::format("lorry standardize --dataset {}", entry.name)));
      }
    }
    for (const auto& model : models) {
      if (!wanted(model.name, options_.model)) continue;
      add_files(store::model_dir(model.name), model.info,
                fmt::format("lorry import-model {} --model {}",
                            model.info ? text(*model.info, "source") : "SOURCE", model.name));
      LORRY_TRY(collect_runs(model.name));
    }
    return {};
  }

  static std::string import_command(const Entry& entry) {
    std::string source = "SOURCE";
    if (entry.info && entry.info->contains("inputs")) {
      const Json sources = (*entry.info)["inputs"].value("source", Json());
      if (sources.is_array() && !sources.empty() && sources[0].is_object())
        source = text(sources[0], "path") + (sources.size() > 1 ? " ..." : "");
    }
    return fmt::format("lorry import-dataset {} --dataset {}", source, entry.name);
  }

  Result<> collect_runs(const std::string& model) {
    const auto names = [&](const std::string& dataset) {
      return fmt::format("--model {} --dataset {}", model, dataset);
    };
    LORRY_ASSIGN(const auto ready, list_entries(bucket_, "model-ready/" + model));
    for (const auto& entry : ready) {
      if (!wanted(entry.name, options_.dataset)) continue;
      LORRY_TRY(add_shards(store::model_ready_dir(model, entry.name), entry.info,
                           "lorry pretokenize " + names(entry.name)));
    }
    LORRY_ASSIGN(const auto trained, list_entries(bucket_, "done/" + model));
    for (const auto& entry : trained) {
      if (!wanted(entry.name, options_.dataset)) continue;
      add_files(store::done_dir(model, entry.name), entry.info, "lorry train " + names(entry.name));
    }
    return {};
  }

  size_t add_part(std::vector<std::string> marks, std::string mend) {
    parts_.push_back({std::move(marks), std::move(mend)});
    return parts_.size() - 1;
  }

  /// A directory whose info.json lists its files.
  void add_files(const std::string& dir, const std::optional<Json>& info, std::string mend) {
    if (!info || !info->contains("files") || !(*info)["files"].is_array()) return;
    const size_t part = add_part({dir + "/info.json"}, std::move(mend));
    for (const auto& file : (*info)["files"]) {
      if (!file.is_object()) continue;
      files_.push_back({store::join_path(dir, text(file, "name")), number(file, "bytes"),
                        checksum(file), text(file, "sha256"), part});
    }
  }

  /// The shards of a complete stage, each read from its state.json.
  Result<> add_shards(const std::string& dir, const std::optional<Json>& info, std::string mend) {
    if (!info) return {};
    const int64_t shards = info->value("count", int64_t{-1}) + 1;
    std::vector<std::vector<Recorded>> found(static_cast<size_t>(std::max<int64_t>(shards, 0)));
    std::vector<size_t> parts;
    for (int64_t shard = 0; shard < shards; ++shard)
      parts.push_back(
          add_part({store::shard_dir(dir, shard) + "/state.json", dir + "/info.json"}, mend));
    LORRY_TRY(in_parallel(shards, threads_, [&](int64_t i) -> Result<> {
      LORRY_ASSIGN(found[size_t(i)], read_state(store::shard_dir(dir, i), parts[size_t(i)]));
      return {};
    }));
    for (auto& files : found) files_.insert(files_.end(), files.begin(), files.end());
    return {};
  }

  Result<std::vector<Recorded>> read_state(const std::string& dir, size_t part) {
    const auto shard = data::shard_files(bucket_, dir);
    if (!shard.ok()) {
      const ErrorKind kind = shard.error().kind;
      if (kind != ErrorKind::kNotFound && kind != ErrorKind::kCorruptData) return shard.error();
      damaged(dir + "/state.json", kind == ErrorKind::kNotFound ? "missing" : "damaged", part);
      return std::vector<Recorded>();
    }
    std::vector<Recorded> files;
    for (const auto& file : *shard) {
      Recorded& recorded = files.emplace_back(Recorded{.path = file.path, .part = part});
      if (file.size < 0) continue;  // another program's
      recorded.size = file.size;
      recorded.crc32c = file.crc32c;
    }
    return files;
  }

  Result<> check(const Recorded& file) {
    LORRY_ASSIGN(const auto info, bucket_.stat(file.path));
    if (!info || info->is_directory) {
      damaged(file.path, "missing", file.part);
      return {};
    }
    if (file.size && info->size != *file.size) {
      damaged(file.path,
              fmt::format("{} bytes, not {}", format_count(info->size), format_count(*file.size)),
              file.part);
      return {};
    }
    if (!file.crc32c && file.sha256.empty()) {
      std::lock_guard lock(mutex_);
      ++report_.unchecked;
      return {};
    }
    return compare_bytes(file);
  }

  Result<> compare_bytes(const Recorded& file) {
    Sha256 sha256;
    const bool by_sha256 = !file.crc32c;
    const auto sum = store::read_checksum(bucket_, file.path, [&](std::string_view piece) {
      if (by_sha256) sha256.update(piece);
      count_bytes(static_cast<int64_t>(piece.size()));
    });
    if (!sum.ok()) return sum.error();
    const bool same = by_sha256 ? sha256.hex() == file.sha256 : sum->crc32c == file.crc32c;
    if (!same) {
      damaged(file.path, "its bytes are not those that were written (checksum differs)", file.part);
      return {};
    }
    std::lock_guard lock(mutex_);
    ++report_.files;
    report_.bytes += sum->size;
    return {};
  }

  void count_bytes(int64_t bytes) {
    std::lock_guard lock(mutex_);
    bytes_done_ += bytes;
    if (options_.progress) options_.progress(bytes_done_, bytes_total_);
  }

  void damaged(const std::string& path, std::string what, size_t part) {
    std::lock_guard lock(mutex_);
    report_.damages.push_back({path, std::move(what), parts_[part].mend});
    broken_parts_.push_back(part);
  }

  Result<> remove_marks() {
    std::map<std::string, std::vector<std::string>> by_output;  // info.json is the last of a part's
    for (const size_t part : broken_parts_) {
      const auto& marks = parts_[part].marks;
      auto& all = by_output[marks.back().substr(0, marks.back().rfind('/'))];
      all.insert(all.end(), marks.begin(), marks.end());
    }
    for (const auto& [dir, marks] : by_output) {
      LORRY_ASSIGN(const auto claim,
                   store::Claim::take(options_.bucket, {dir, {}, "verify --repair", "repair", 0, 1},
                                      options_.wait));
      for (const auto& mark : marks) LORRY_TRY(claim->bucket()->remove(mark));
    }
    return {};
  }

  const VerifyOptions& options_;
  const store::Bucket& bucket_;
  const int threads_;
  std::vector<Part> parts_;
  std::vector<Recorded> files_;
  std::mutex mutex_;
  VerifyReport report_;
  std::vector<size_t> broken_parts_;
  int64_t bytes_total_ = 0, bytes_done_ = 0;
};

}  // namespace

Result<VerifyReport> verify(const VerifyOptions& options) { return Verification(options).run(); }

Json to_json(const VerifyReport& report) {
  Json damages = Json::array();
  for (const auto& damage : report.damages)
    damages.push_back({{"path", damage.path}, {"what", damage.what}, {"mend", damage.mend}});
  return {{"files", report.files},
          {"bytes", report.bytes},
          {"unchecked", report.unchecked},
          {"damaged", std::move(damages)}};
}

}  // namespace lorry::inspect
