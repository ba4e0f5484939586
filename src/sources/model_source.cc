#include "sources/model_source.h"

#include <arrow/io/file.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "hub/hub.h"
#include "hub/offline.h"
#include "net/http.h"
#include "net/ranges.h"
#include "sources/model_files.h"
#include "sources/source_kinds.h"
#include "store/arrow_error.h"
#include "store/bucket.h"

namespace lorry::sources {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxSmallFile = 64 << 20;

void sort_by_name(std::vector<ModelFile>& files) {
  std::sort(files.begin(), files.end(),
            [](const ModelFile& a, const ModelFile& b) { return a.name < b.name; });
}

/// The directory's own name; "a/b/" is "b", "." is what the working directory is called.
std::string last_part(const std::string& path) {
  std::error_code error;
  fs::path whole = fs::absolute(path, error).lexically_normal();
  if (!whole.has_filename()) whole = whole.parent_path();
  return whole.filename().string();
}

/// The files right in a directory, `before` in front of their names.
Result<> add_files_of(const std::string& directory, const std::string& before,
                      std::vector<ModelFile>& files) {
  std::error_code error;
  fs::directory_iterator entries(directory, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    std::error_code ignored;
    if (!entries->is_regular_file(ignored)) continue;
    LORRY_ASSIGN(auto file, local_model_file(before + entries->path().filename().string(),
                                             entries->path().string()));
    files.push_back(std::move(file));
  }
  if (error) return unavailable(fmt::format("cannot list {}: {}", directory, error.message()));
  return {};
}

Result<ModelSource> open_directory(const std::string& directory) {
  ModelSource source;
  source.name = source.directory = directory;
  source.default_name = last_part(directory);
  std::error_code error;
  source.origin["source"] = fs::absolute(directory, error).lexically_normal().string();
  if (!fs::is_directory(directory, error)) {
    return invalid_input(
        fmt::format("{} is not a directory; a model is a directory with config.json", directory));
  }
  LORRY_TRY(add_files_of(directory, "", source.files));
  const std::string templates = (fs::path(directory) / kTemplateDirectory).string();
  if (fs::is_directory(templates, error))
    LORRY_TRY(add_files_of(templates, std::string(kTemplateDirectory) + "/", source.files));
  sort_by_name(source.files);
  return source;
}

Result<ModelSource> open_prefix(const std::string& url) {
  const size_t name = url.find("://") + 3;
  const size_t slash = std::min(url.find('/', name), url.size());
  std::string path = slash < url.size() ? url.substr(slash + 1) : "";
  while (path.ends_with('/')) path.pop_back();
  LORRY_ASSIGN(const auto bucket, store::Bucket::open(url.substr(0, slash), false));
  LORRY_ASSIGN(auto objects, bucket->list(path));
  LORRY_ASSIGN(const auto templates, bucket->list(store::join_path(path, kTemplateDirectory)));
  objects.insert(objects.end(), templates.begin(), templates.end());
  ModelSource source;
  source.name = url;
  while (source.name.ends_with('/')) source.name.pop_back();
  source.default_name = source.name.substr(source.name.rfind('/') + 1);
  source.origin["source"] = source.name;
  for (const auto& object : objects) {
    if (object.is_directory) continue;
    ModelFile file;
    file.name = object.path.substr(path.empty() ? 0 : path.size() + 1);
    file.path = url.substr(0, slash) + "/" + object.path;
    file.bytes = object.size;
    file.version = object.etag;
    file.open = [bucket, at = object.path] { return bucket->open_input(at); };
    file.open_stream = [bucket, at = object.path] { return bucket->open_stream(at); };
    source.files.push_back(std::move(file));
  }
  if (source.files.empty()) {
    return not_found(fmt::format("{}: there is no such prefix, or no file right below it", url));
  }
  sort_by_name(source.files);
  return source;
}

struct ModelPlace {
  std::string id, revision;
};

/// owner/name, hf://owner/name[@revision], hf://models/..., or the model's page.
std::optional<ModelPlace> parse_model_place(std::string text) {
  bool named = false;
  for (const auto& prefix : {std::string("hf://models/"), std::string("hf://"),
                             hub::find_access().endpoint + "/", hub::Access().endpoint + "/"}) {
    if (!text.starts_with(prefix)) continue;
    text = text.substr(prefix.size());
    named = true;
    break;
  }
  ModelPlace place;
  const size_t at = text.find('@');
  if (named && at != std::string::npos) {
    place.revision = net::url_decode(text.substr(at + 1));
    text = text.substr(0, at);
  }
  while (named && text.ends_with('/')) text.pop_back();
  if (const size_t tree = text.find("/tree/"); named && tree != std::string::npos) {
    place.revision = net::url_decode(text.substr(tree + 6));
    text = text.substr(0, tree);
  }
  if (!hub::is_repo_id(text)) return std::nullopt;
  place.id = text;
  return place;
}

/// Without the Hub: what `huggingface_hub` has kept of the model.
Result<ModelSource> open_cached(const std::string& id, const std::string& revision) {
  const auto snapshot = hub::cached_snapshot(hub::RepoKind::kModel, id, revision);
  if (!snapshot) return hub::offline(hub::RepoKind::kModel, id);
  LORRY_ASSIGN(ModelSource source, open_directory(snapshot->directory));
  source.default_name = id;
  source.origin["source"] = fmt::format("hf://{}@{}", id, snapshot->commit);
  source.origin["repository"] = id;
  source.origin["commit"] = snapshot->commit;
  return source;
}

Result<ModelSource> open_repository(const ModelPlace& place, const std::string& revision) {
  if (!revision.empty() && !place.revision.empty() && revision != place.revision) {
    return usage_error(fmt::format("{} is asked for at {} and at --revision {}", place.id,
                                   place.revision, revision));
  }
  const std::string& asked = revision.empty() ? place.revision : revision;
  if (hub::is_offline()) return open_cached(place.id, asked);
  const hub::Hub hub(hub::find_access());
  LORRY_ASSIGN(const auto repo, hub.resolve(hub::RepoKind::kModel, place.id, asked));
  LORRY_ASSIGN(const auto list, hub.list(repo));
  ModelSource source;
  source.name = repo.id;
  source.default_name = place.id;
  source.origin["source"] = fmt::format("hf://{}@{}", repo.id, repo.commit);
  source.origin["repository"] = repo.id;
  source.origin["commit"] = repo.commit;
  for (const auto& entry : list) {
    if (entry.path.find('/') != std::string::npos && !is_named_template(entry.path)) continue;
    ModelFile file;
    file.name = entry.path;
    file.path = hub::Hub::file_name(repo, entry.path);
    file.bytes = entry.size;
    file.version = entry.sha256.empty() ? entry.oid : entry.sha256;
    file.sha256 = entry.sha256;
    file.git_blob = entry.sha256.empty() ? entry.oid : "";
    const auto range = hub.open(repo, entry);
    file.open = [range]() -> Result<std::shared_ptr<arrow::io::RandomAccessFile>> {
      return net::open_range_file(range);
    };
    file.open_stream = [range]() -> Result<std::shared_ptr<arrow::io::InputStream>> {
      return net::open_range_stream(range, 0);
    };
    source.files.push_back(std::move(file));
  }
  return source;
}

}  // namespace

Result<ModelFile> local_model_file(const std::string& name, const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0)
    return unavailable(fmt::format("cannot read {}: {}", path, std::strerror(errno)));
  ModelFile file;
  file.name = name;
  file.path = path;
  file.bytes = int64_t{status.st_size};
  file.version =
      std::to_string(int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec);
  file.open = [path]() -> Result<std::shared_ptr<arrow::io::RandomAccessFile>> {
    LORRY_ASSIGN(auto opened, store::from_arrow(arrow::io::ReadableFile::Open(path), path));
    return std::shared_ptr<arrow::io::RandomAccessFile>(std::move(opened));
  };
  file.open_stream = [path]() -> Result<std::shared_ptr<arrow::io::InputStream>> {
    LORRY_ASSIGN(auto opened, store::from_arrow(arrow::io::ReadableFile::Open(path), path));
    return std::shared_ptr<arrow::io::InputStream>(std::move(opened));
  };
  return file;
}

Result<std::string> read_whole(const ModelFile& file) {
  if (file.bytes > kMaxSmallFile) {
    return invalid_input(fmt::format("{} is too large: {} bytes", file.path, file.bytes));
  }
  LORRY_ASSIGN(const auto opened, file.open());
  std::string text(size_t(file.bytes), '\0');
  LORRY_ASSIGN(const int64_t got,
               store::from_arrow(opened->ReadAt(0, file.bytes, text.data()), file.path));
  text.resize(size_t(got));
  return text;
}

const ModelFile* ModelSource::find(const std::string& file) const {
  for (const auto& one : files) {
    if (one.name == file) return &one;
  }
  return nullptr;
}

Result<ModelSource> open_model_source(const std::string& source, const std::string& revision) {
  std::error_code error;
  if (source.empty()) return usage_error("the model's directory or Hub id is missing");
  const bool local = fs::exists(source, error);
  const auto place = local ? std::nullopt : parse_model_place(source);
  if (place) return open_repository(*place, revision);
  if (!revision.empty()) {
    return usage_error(fmt::format("--revision is for models of the Hub; {} is none", source));
  }
  if (local) return open_directory(source);
  const std::string scheme = scheme_of(source);
  if (scheme == "s3" || scheme == "gs" || scheme == "az") return open_prefix(source);
  if (!scheme.empty()) {
    return unsupported(fmt::format(
        "{}: a model is a directory, a Hub id (owner/name), or an s3://, gs:// or az:// prefix",
        source));
  }
  return not_found(fmt::format("there is no directory {}", source));
}

}  // namespace lorry::sources
