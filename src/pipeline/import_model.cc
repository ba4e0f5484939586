#include "pipeline/import_model.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <vector>

#include "base/cancel.h"
#include "base/digest.h"
#include "base/json.h"
#include "base/log.h"
#include "base/version.h"
#include "pipeline/engine.h"
#include "pipeline/model_files.h"
#include "store/layout.h"
#include "text/chat.h"

namespace lorry::pipeline {
namespace {

namespace fs = std::filesystem;

constexpr size_t kCopyBytes = 4 << 20;

/// The directory's own name; "a/b/" is "b", "." is what the working directory is called.
std::string default_model_name(const std::string& source) {
  std::error_code error;
  fs::path path = fs::absolute(source, error).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

/// "org/name", which is no path here: a Hub id.
bool looks_like_hub_id(const std::string& source) {
  const size_t slash = source.find('/');
  return slash != std::string::npos && slash > 0 && slash + 1 < source.size() &&
         source.find('/', slash + 1) == std::string::npos && source[0] != '.' && source[0] != '~';
}

Result<> check_source(const std::string& source) {
  std::error_code error;
  if (source.empty()) return usage_error("the model's directory is missing");
  if (fs::exists(source, error)) return {};
  if (source.find("://") != std::string::npos)
    return unsupported(
        fmt::format("{}: models come from a local directory so far; download it first", source));
  if (looks_like_hub_id(source))
    return unsupported(fmt::format(
        "there is no directory {}, and fetching models from the Hub is not supported yet; "
        "download it and give its directory",
        source));
  return not_found(fmt::format("there is no directory {}", source));
}

Result<> check_text(const std::string& source, const std::vector<ModelFile>& files) {
  const auto read = [&](std::string_view name) -> Result<std::optional<std::string>> {
    for (const auto& entry : files) {
      if (entry.name != name) continue;
      std::ifstream file(entry.path, std::ios::binary);
      std::ostringstream text;
      text << file.rdbuf();
      if (!file) return unavailable(fmt::format("cannot read {}", entry.path));
      return std::optional<std::string>(text.str());
    }
    return std::optional<std::string>();
  };
  LORRY_ASSIGN(const auto chat, text::Chat::load(read).with_context(source));
  if (!chat->has_template())
    log::warn("{} has no chat template; it can be trained on plain text only", source);
  return {};
}

/// Puts the user's template in the place of chat_template.jinja, which goes before all others.
Result<> replace_template(const std::string& path, std::vector<ModelFile>& files) {
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  if (error)
    return not_found(fmt::format("--chat-template: cannot read {}: {}", path, error.message()));
  std::erase_if(files, [](const auto& file) { return file.name.starts_with("chat_template."); });
  files.push_back({"chat_template.jinja", path, static_cast<int64_t>(bytes)});
  std::sort(files.begin(), files.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return {};
}

/// The architecture's check needs the engine; without it the check waits until training.
Result<> check_architecture(const std::string& source) {
  const auto engine = load_engine();
  if (!engine.ok()) {
    log::warn("the architecture is not checked yet: {}", engine.error().message);
    return {};
  }
  if ((*engine)->check_model == nullptr) return {};
  return (*engine)->check_model(source).with_context(source);
}

std::string architecture_of(const std::string& source) {
  std::ifstream file(fs::path(source) / "config.json");
  const Json config = Json::parse(file, nullptr, false);
  if (!config.is_object()) return "";
  const Json names = config.value("architectures", Json());
  if (names.is_array() && !names.empty() && names[0].is_string()) return names[0];
  const Json type = config.value("model_type", Json());
  return type.is_string() ? type.get<std::string>() : "";
}

int64_t modified_ns(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return 0;
  return int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

/// Reads a file in pieces; `take` gets each. Returns the SHA-256.
Result<std::string> read_pieces(const fs::path& path,
                                const std::function<Result<>(std::string_view)>& take) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    return unavailable(fmt::format("cannot read {}: {}", path.string(), std::strerror(errno)));
  std::vector<char> buffer(kCopyBytes);
  Sha256 digest;
  while (file) {
    LORRY_TRY(check_cancelled());
    file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    const std::string_view piece(buffer.data(), static_cast<size_t>(file.gcount()));
    if (piece.empty()) break;
    digest.update(piece);
    LORRY_TRY(take(piece));
  }
  if (file.bad()) return unavailable(fmt::format("cannot read {}", path.string()));
  return digest.hex();
}

/// Whether info.json describes the source: same names and sizes, and for each file the same time of
/// change or the same digest.
Result<bool> unchanged(const Json& info, const std::vector<ModelFile>& files) {
  if (!info.contains("files") || !info["files"].is_array()) return false;
  const Json& known = info["files"];
  if (known.size() != files.size()) return false;
  for (size_t i = 0; i < files.size(); ++i) {
    if (!known[i].is_object() || known[i].value("name", "") != files[i].name ||
        known[i].value("bytes", int64_t{-1}) != files[i].bytes)
      return false;
  }
  for (size_t i = 0; i < files.size(); ++i) {
    const fs::path path = files[i].path;
    if (known[i].value("modified_ns", int64_t{-1}) == modified_ns(path)) continue;
    LORRY_ASSIGN(const auto digest, read_pieces(path, [](auto) { return Result<>(); }));
    if (known[i].value("sha256", "") != digest) return false;
  }
  return true;
}

Result<> remove_others(const store::Bucket& bucket, const std::string& dir,
                       const std::vector<ModelFile>& files) {
  std::set<std::string> keep;
  for (const auto& file : files) keep.insert(file.name);
  LORRY_ASSIGN(const auto children, bucket.list(dir));
  for (const auto& child : children)
    if (!child.is_directory && !keep.contains(child.path.substr(child.path.rfind('/') + 1)))
      LORRY_TRY(bucket.remove(child.path));
  return {};
}

Result<Json> copy_files(const ImportModelOptions& options, const std::string& dir,
                        const std::vector<ModelFile>& files, int64_t total) {
  Json copied = Json::array();
  int64_t done = 0;
  for (const auto& file : files) {
    const fs::path path = file.path;
    const int64_t modified = modified_ns(path);
    LORRY_ASSIGN(auto writer, options.bucket->create(dir + "/" + file.name));
    const int64_t before = done;
    LORRY_ASSIGN(const auto digest, read_pieces(path, [&](std::string_view piece) -> Result<> {
                   LORRY_TRY(writer->write(piece));
                   done += static_cast<int64_t>(piece.size());
                   if (options.progress) options.progress(done, total);
                   return {};
                 }));
    if (done - before != file.bytes)
      return corrupt_data(
          fmt::format("{} changed while it was copied; import again", path.string()));
    LORRY_TRY(writer->commit());
    copied.push_back({{"name", file.name},
                      {"bytes", file.bytes},
                      {"sha256", digest},
                      {"modified_ns", modified}});
  }
  return copied;
}

}  // namespace

Result<ImportModelReport> import_model(const ImportModelOptions& options) {
  LORRY_TRY(check_source(options.source));
  ImportModelReport report;
  report.model = options.model.empty() ? default_model_name(options.source) : options.model;
  const std::string dir = store::model_dir(report.model);
  LORRY_ASSIGN(auto files, list_model_files(options.source));
  if (!options.chat_template.empty()) LORRY_TRY(replace_template(options.chat_template, files));
  for (const auto& file : files) report.bytes += file.bytes;
  report.files = static_cast<int64_t>(files.size());
  report.architecture = architecture_of(options.source);

  LORRY_ASSIGN(const auto info, options.bucket->read_info(dir));
  if (info && !options.fresh) {
    LORRY_ASSIGN(report.up_to_date, unchanged(*info, files));
    if (report.up_to_date) return report;
  }
  LORRY_TRY(check_architecture(options.source));
  LORRY_TRY(check_text(options.source, files));

  LORRY_TRY(options.bucket->remove(dir + "/info.json"));
  LORRY_TRY(remove_others(*options.bucket, dir, files));
  LORRY_ASSIGN(const Json copied, copy_files(options, dir, files, report.bytes));
  std::error_code error;
  LORRY_TRY(options.bucket->write_info(
      dir, Json{{"source", fs::absolute(options.source, error).lexically_normal().string()},
                {"architecture", report.architecture},
                {"bytes", report.bytes},
                {"files", copied},
                {"lorry_version", kVersion}}));
  return report;
}

}  // namespace lorry::pipeline
