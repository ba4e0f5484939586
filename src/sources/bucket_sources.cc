// Sources in buckets (s3://, gs://, az://), and directories of which a split is asked for.
#include <arrow/io/interfaces.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "hub/glob.h"
#include "sources/source_kinds.h"
#include "store/bucket.h"

namespace lorry::sources {
namespace {

using store::Bucket;
using store::ObjectInfo;

/// Below a bucket's root: what is there, and how it becomes a source.
struct Folder {
  std::shared_ptr<Bucket> bucket;
  std::string root;  ///< "s3://name", for messages and info.json
  std::string path;  ///< in the bucket, without slashes at its ends

  std::string name(const std::string& object) const { return root + "/" + object; }

  data::SourceFile file(const ObjectInfo& object, data::Format format) const {
    data::SourceFile source;
    source.path = name(object.path);
    source.format = format;
    source.size = object.size;
    source.version = object.etag;
    source.remote = !bucket->is_local();
    source.open = [bucket = bucket, path = object.path] { return bucket->open_input(path); };
    return source;
  }
};

std::vector<ObjectInfo> files_only(std::vector<ObjectInfo> objects) {
  std::erase_if(objects, [](const ObjectInfo& object) { return object.is_directory; });
  std::sort(objects.begin(), objects.end(),
            [](const ObjectInfo& a, const ObjectInfo& b) { return a.path < b.path; });
  return objects;
}

/// Whether a key with "//" in it is one that a glob seems to name.
bool matches_but_for_empty_parts(const std::string& glob, const std::string& key) {
  if (key.find("//") == std::string::npos) return false;
  std::string single;
  for (const char c : key) {
    if (c != '/' || !single.ends_with('/')) single += c;
  }
  return hub::glob_match(glob, single);
}

Result<> add_glob(const Folder& folder, data::FoundFiles& found) {
  // List below the last folder before the first wildcard.
  const std::string fixed = folder.path.substr(0, folder.path.find_first_of("*?["));
  const std::string start = fixed.substr(0, std::min(fixed.rfind('/'), fixed.size()));
  const bool whole = fixed.find('/') == std::string::npos;
  LORRY_ASSIGN(auto objects, folder.bucket->list(whole ? "" : start, true));
  size_t matched = 0;
  for (const auto& object : files_only(std::move(objects))) {
    if (!hub::glob_match(folder.path, object.path)) {
      if (matches_but_for_empty_parts(folder.path, object.path))
        found.notes.push_back(fmt::format(
            "{}: left out, its name has an empty part, which * does not match", object.path));
      continue;
    }
    const auto format = data::format_of_name(object.path);
    if (!format) {
      found.notes.push_back(fmt::format("{}: left out, not a data file", object.path));
      continue;
    }
    ++matched;
    found.files.push_back(folder.file(object, *format));
  }
  if (matched == 0) return not_found(fmt::format("{}: no file matches", folder.name(folder.path)));
  return {};
}

/// What `datasets` saved to disk: the files that its state.json names, in their order.
Result<> add_saved(const Folder& folder, data::FoundFiles& found) {
  const std::string state_path = store::join_path(folder.path, "state.json");
  LORRY_ASSIGN(const auto text, folder.bucket->read(state_path));
  LORRY_ASSIGN(const Json state, parse_json(text, folder.name(state_path)));
  if (!state.is_object() || !state.contains("_data_files") || !state["_data_files"].is_array()) {
    return corrupt_data(fmt::format("{}: no _data_files", folder.name(state_path)));
  }
  for (const auto& entry : state["_data_files"]) {
    const Json name = entry.is_object() ? entry.value("filename", Json()) : Json();
    if (!name.is_string()) {
      return corrupt_data(fmt::format("{}: a file without name", folder.name(state_path)));
    }
    const auto path = store::join_path(folder.path, name.get<std::string>());
    LORRY_ASSIGN(const auto object, folder.bucket->stat(path));
    if (!object || object->is_directory) {
      return corrupt_data(fmt::format("{} names {}, which is not there", folder.name(state_path),
                                      folder.name(path)));
    }
    found.files.push_back(folder.file(*object, data::Format::kArrow));
  }
  return {};
}

/// A directory as one data set, by its README and its names.
Result<> add_dataset(const Folder& folder, const HubOptions& options, data::FoundFiles& found) {
  LORRY_ASSIGN(auto objects, folder.bucket->list(folder.path, true));
  const std::string prefix = folder.path.empty() ? "" : folder.path + "/";
  hub::DatasetQuestion question;
  question.what = folder.path.empty() ? folder.root : folder.name(folder.path);
  question.config = options.config;
  question.split = options.split;
  std::map<std::string, ObjectInfo> files;
  for (auto& object : files_only(std::move(objects))) {
    const std::string relative = object.path.substr(prefix.size());
    question.paths.push_back(relative);
    files.emplace(relative, std::move(object));
  }
  if (files.empty()) return not_found(fmt::format("{}: nothing is there", question.what));
  const auto saved = [&](const std::string& below) {
    return Folder{folder.bucket, folder.root, store::join_path(folder.path, below)};
  };
  if (files.contains("state.json")) return add_saved(folder, found);
  if (files.contains("dataset_dict.json")) {
    const std::string split = options.split.empty() ? "train" : options.split;
    if (files.contains(split + "/state.json")) return add_saved(saved(split), found);
    return not_found(fmt::format("{} has no split {}", question.what, split));
  }
  for (const auto& [name, text] :
       {std::pair{"README.md", &question.readme}, {".huggingface.yaml", &question.yaml}}) {
    if (!files.contains(name)) continue;
    LORRY_ASSIGN(*text, folder.bucket->read(files.at(name).path));
  }
  LORRY_TRY(refuse_foreign(question));
  LORRY_ASSIGN(auto chosen, hub::resolve_dataset(question));
  for (const auto& path : chosen.paths) {
    LORRY_ASSIGN(const auto format, format_of_named(path));
    found.files.push_back(folder.file(files.at(path), format));
  }
  for (auto& note : chosen.notes) found.notes.push_back(std::move(note));
  say_choice(question.what, chosen);
  return {};
}

}  // namespace

Result<> add_bucket_files(const std::string& url, const HubOptions& options,
                          data::FoundFiles& found) {
  const size_t name = url.find("://") + 3;
  const size_t slash = std::min(url.find('/', name), url.size());
  Folder folder;
  folder.root = url.substr(0, slash);
  folder.path = slash < url.size() ? url.substr(slash + 1) : "";
  if (slash == name) return usage_error(fmt::format("{}: the bucket's name is missing", url));
  LORRY_ASSIGN(folder.bucket, Bucket::open(folder.root, false));
  const bool is_folder = folder.path.empty() || folder.path.ends_with('/');
  if (is_folder && !folder.path.empty()) folder.path.pop_back();
  if (hub::has_magic(folder.path)) return add_glob(folder, found);
  if (!is_folder) {
    LORRY_ASSIGN(const auto object, folder.bucket->stat(folder.path));
    if (!object) return not_found(fmt::format("{}: no such object or prefix", url));
    if (!object->is_directory) {
      LORRY_ASSIGN(const auto format, format_of_named(folder.path));
      found.files.push_back(folder.file(*object, format));
      return {};
    }
  }
  return add_dataset(folder, options, found);
}

Result<> add_directory_files(const std::string& directory, const HubOptions& options,
                             data::FoundFiles& found) {
  std::error_code error;
  const auto root = std::filesystem::absolute(directory, error).lexically_normal();
  Folder folder;
  folder.root = root.string();
  while (folder.root.size() > 1 && folder.root.ends_with('/')) folder.root.pop_back();
  LORRY_ASSIGN(folder.bucket, Bucket::open(folder.root, false));
  return add_dataset(folder, options, found);
}

}  // namespace lorry::sources
