#include "stages/import_model.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/cancel.h"
#include "base/digest.h"
#include "base/json.h"
#include "base/log.h"
#include "base/version.h"
#include "chat/chat.h"
#include "engine/engine.h"
#include "sources/model_files.h"
#include "sources/model_source.h"
#include "stages/model_copy.h"
#include "stages/shard_work.h"  // digest_of_info
#include "stages/vocabulary.h"
#include "store/claim.h"
#include "store/layout.h"

namespace lorry::stages {
namespace {

namespace fs = std::filesystem;

Result<> check_text(const std::string& source, const std::vector<sources::ModelFile>& files) {
  const auto read = [&](std::string_view name) -> Result<std::optional<std::string>> {
    for (const auto& entry : files) {
      if (entry.name != name) continue;
      LORRY_ASSIGN(auto text, sources::read_whole(entry));
      return std::optional<std::string>(std::move(text));
    }
    return std::optional<std::string>();
  };
  LORRY_ASSIGN(const auto chat, chat::Chat::load(read).with_context(source));
  if (!chat->has_template())
    log::warn("{} has no chat template; it can be trained on plain text only", source);
  LORRY_ASSIGN(const auto config, read("config.json"));
  return check_vocabulary(*chat, Json::parse(config.value_or(""), nullptr, false), source)
      .with_context(source);
}

/// Puts the user's template in the place of chat_template.jinja, which goes before all others.
Result<> replace_template(const std::string& path, std::vector<sources::ModelFile>& files) {
  std::error_code error;
  if (!fs::is_regular_file(path, error))
    return not_found(fmt::format("--chat-template: there is no file {}", path));
  std::erase_if(files, [](const auto& file) {
    return file.name.starts_with("chat_template.") || sources::is_named_template(file.name);
  });
  LORRY_ASSIGN(auto file, sources::local_model_file("chat_template.jinja", path));
  files.push_back(std::move(file));
  std::sort(files.begin(), files.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return {};
}

/// A directory that goes away with this object.
class TemporaryDirectory {
 public:
  static Result<TemporaryDirectory> create() {
    std::error_code error;
    const auto parent = fs::temp_directory_path(error);
    std::string path = (error ? fs::path("/tmp") : parent) / "lorry-model-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr)
      return unavailable(fmt::format("cannot make a temporary directory in {}", parent.string()));
    return TemporaryDirectory(path);
  }
  TemporaryDirectory(TemporaryDirectory&& other) noexcept : path_(std::move(other.path_)) {
    other.path_.clear();
  }
  TemporaryDirectory& operator=(TemporaryDirectory&&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  explicit TemporaryDirectory(const std::string& path) : path_(path) {}
  fs::path path_;
};

Result<std::string> header_bytes(const sources::ModelFile& file) {
  LORRY_ASSIGN(auto header, sources::read_header(file));
  return std::move(header.bytes);
}

/// The JSON files and the headers of the weights of a model that is elsewhere, as a directory: the
/// tensors are holes, so that it costs no space.
Result<TemporaryDirectory> sketch(const std::vector<sources::ModelFile>& files) {
  LORRY_ASSIGN(auto directory, TemporaryDirectory::create());
  for (const auto& file : files) {
    const bool weights = file.name.ends_with(".safetensors");
    if (!weights && !file.name.ends_with(".json")) continue;
    LORRY_ASSIGN(const auto text, weights ? header_bytes(file) : sources::read_whole(file));
    const auto path = directory.path() / file.name;
    std::ofstream(path, std::ios::binary) << text;
    std::error_code error;
    fs::resize_file(path, uintmax_t(file.bytes), error);
    if (error) return unavailable(fmt::format("{}: {}", path.string(), error.message()));
  }
  return directory;
}

/// The architecture's check needs the engine; without it the check waits until training.
Result<> check_architecture(const sources::ModelSource& source,
                            const std::vector<sources::ModelFile>& files) {
  const auto engine = engine::load_engine();
  if (!engine.ok()) {
    log::warn("the architecture is not checked yet: {}", engine.error().message);
    return {};
  }
  if ((*engine)->check_model == nullptr) return {};
  if (!source.directory.empty())
    return (*engine)->check_model(source.directory).with_context(source.name);
  LORRY_ASSIGN(const auto directory, sketch(files));
  auto checked = (*engine)->check_model(directory.path().string());
  if (checked.ok()) return {};
  // The user knows nothing of the temporary directory.
  Error error = checked.error();
  const std::string path = directory.path().string() + "/";
  for (size_t at; (at = error.message.find(path)) != std::string::npos;)
    error.message.erase(at, path.size());
  return error.with_context(source.name);
}

Result<std::string> architecture_of(const sources::ModelSource& source) {
  LORRY_ASSIGN(const auto text, sources::read_whole(*source.find("config.json")));
  const Json config = Json::parse(text, nullptr, false);
  if (!config.is_object()) return std::string();
  const Json names = config.value("architectures", Json());
  if (names.is_array() && !names.empty() && names[0].is_string()) return names[0];
  const Json type = config.value("model_type", Json());
  return type.is_string() ? type.get<std::string>() : std::string();
}

/// Whether info.json describes the source: same names and sizes, and for each file the same version
/// or (of a local one, which may have been touched) the same digest.
Result<bool> unchanged(const Json& info, const sources::ModelSource& source,
                       const std::vector<sources::ModelFile>& files) {
  const Json known = info.value("files", Json());
  if (!known.is_array() || known.size() != files.size()) return false;
  for (size_t i = 0; i < files.size(); ++i) {
    if (!known[i].is_object() || known[i].value("name", "") != files[i].name ||
        known[i].value("bytes", int64_t{-1}) != files[i].bytes)
      return false;
  }
  for (size_t i = 0; i < files.size(); ++i) {
    const Json& record = known[i];
    const bool same = !files[i].version.empty() && record.value("version", "") == files[i].version;
    if (same || (!files[i].sha256.empty() && record.value("sha256", "") == files[i].sha256))
      continue;
    if (source.directory.empty()) return false;
    LORRY_ASSIGN(const auto digest, digest_of(files[i]));
    if (record.value("sha256", "") != digest) return false;
  }
  return true;
}

Result<> remove_others(const store::Bucket& bucket, const std::string& dir,
                       const std::vector<sources::ModelFile>& files) {
  std::set<std::string> keep = {"import.json"};
  for (const auto& file : files) keep.insert(file.name);
  LORRY_ASSIGN(auto children, bucket.list(dir));
  LORRY_ASSIGN(const auto templates,
               bucket.list(store::join_path(dir, sources::kTemplateDirectory)));
  children.insert(children.end(), templates.begin(), templates.end());
  for (const auto& child : children)
    if (!child.is_directory && !keep.contains(child.path.substr(dir.size() + 1)))
      LORRY_TRY(bucket.remove(child.path));
  return {};
}

/// What earlier imports left that may be kept: records of info.json and of import.json.
Result<Json> known_files(const ImportModelOptions& options, const std::string& dir,
                         const std::optional<Json>& info) {
  if (options.fresh) return Json::array();
  LORRY_ASSIGN(Json known, interrupted_copy(*options.bucket, dir));
  if (!info) return known;
  const Json complete = info->value("files", Json::array());
  if (!complete.is_array()) return known;
  for (const auto& record : complete) known.push_back(record);
  return known;
}

/// Tells what is copied from other versions of the same model.
std::string version_of(const std::vector<sources::ModelFile>& files) {
  Sha256 digest;
  for (const auto& file : files) {
    digest.update(fmt::format("{} {} {} {}\n", file.name, file.bytes, file.version, file.sha256));
  }
  return digest.hex();
}

Json make_info(const sources::ModelSource& source, const ImportModelReport& report,
               const Json& copied) {
  Json info = source.origin;
  info["architecture"] = report.architecture;
  info["bytes"] = report.bytes;
  info["files"] = copied;
  info["lorry_version"] = kVersion;
  return info;
}

}  // namespace

Result<ImportModelReport> import_model(const ImportModelOptions& options) {
  LORRY_ASSIGN(const auto source, sources::open_model_source(options.source, options.revision));
  ImportModelReport report;
  report.model = options.model.empty() ? source.default_name : options.model;
  const std::string dir = store::model_dir(report.model);
  LORRY_ASSIGN(auto files, sources::choose_model_files(source));
  if (!options.chat_template.empty()) LORRY_TRY(replace_template(options.chat_template, files));
  for (const auto& file : files) report.bytes += file.bytes;
  report.files = static_cast<int64_t>(files.size());
  LORRY_ASSIGN(report.architecture, architecture_of(source));

  std::optional<Json> info;
  const auto is_up_to_date = [&]() -> Result<bool> {
    LORRY_ASSIGN(info, options.bucket->read_info(dir));
    if (!info || options.fresh) return false;
    report.digest = digest_of_info(*info);
    LORRY_ASSIGN(report.up_to_date, unchanged(*info, source, files));
    return report.up_to_date;
  };
  LORRY_ASSIGN(bool done, is_up_to_date());
  if (done) return report;
  LORRY_TRY(sources::check_weights(source, files));
  LORRY_TRY(check_architecture(source, files));
  LORRY_TRY(check_text(source.name, files));

  LORRY_ASSIGN(
      const auto claim,
      store::Claim::take(options.bucket, {dir, {}, "import-model", version_of(files), 0, 1},
                         options.wait));
  LORRY_ASSIGN(done, is_up_to_date());  // by whoever had the claim before
  if (done) return report;
  const store::Bucket& bucket = *claim->bucket();
  LORRY_ASSIGN(const Json known, known_files(options, dir, info));
  LORRY_TRY(bucket.remove(dir + "/info.json"));
  LORRY_TRY(remove_others(bucket, dir, files));
  LORRY_ASSIGN(const Json copied, copy_model_files(bucket, dir, files, known, options.progress));
  info = make_info(source, report, copied);
  report.digest = digest_of_info(*info);
  LORRY_TRY(claim->confirm());
  LORRY_TRY(bucket.write_info(dir, *info));
  LORRY_TRY(bucket.remove(interrupted_copy_path(dir)));
  return report;
}

}  // namespace lorry::stages
