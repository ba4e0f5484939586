#include "sources/sources.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/log.h"
#include "base/parallel.h"
#include "data/archive.h"
#include "data/file_names.h"
#include "data/foreign.h"
#include "hub/access.h"
#include "hub/dataset_files.h"
#include "hub/glob.h"
#include "hub/hub.h"
#include "net/http.h"
#include "sources/source_kinds.h"

namespace lorry::sources {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kUrlsAtOnce = 16;

bool is_bucket_scheme(const std::string& scheme) {
  return scheme == "s3" || scheme == "gs" || scheme == "gcs" || scheme == "az" ||
         scheme == "abfs" || scheme == "abfss";
}

bool exists_here(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

/// The lines of @FILE.
Result<std::vector<std::string>> read_list(const std::string& path) {
  std::ifstream file(path);
  if (!file) return not_found(fmt::format("cannot read the list of sources {}", path));
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    const size_t begin = line.find_first_not_of(" \t\r");
    if (begin == std::string::npos || line[begin] == '#') continue;
    line = line.substr(begin, line.find_last_not_of(" \t\r") - begin + 1);
    if (line[0] == '@') {
      return invalid_input(fmt::format("{}: {}: a list cannot name another list", path, line));
    }
    lines.push_back(std::move(line));
  }
  if (lines.empty()) return invalid_input(fmt::format("{} lists no sources", path));
  return lines;
}

Result<std::vector<std::string>> expand_lists(const std::vector<std::string>& sources) {
  std::vector<std::string> expanded;
  for (const auto& source : sources) {
    if (source.starts_with('@')) {
      LORRY_ASSIGN(auto lines, read_list(source.substr(1)));
      for (auto& line : lines) expanded.push_back(std::move(line));
    } else {
      expanded.push_back(source);
    }
  }
  return expanded;
}

/// A file's text; empty where there is none.
std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

Result<> add_local_files(const std::string& source, const HubOptions& options,
                         data::FoundFiles& found) {
  std::error_code ignored;
  const bool is_directory = fs::is_directory(source, ignored);
  const bool choosing = !options.config.empty() || !options.split.empty();
  // The clone of a data set has the splits that it has on the Hub.
  if (is_directory &&
      (choosing || hub::has_configs(text_of(fs::path(source) / "README.md"),
                                    text_of(fs::path(source) / ".huggingface.yaml")))) {
    return add_directory_files(source, options, found);
  }
  LORRY_ASSIGN(auto files, data::find_files({source}));
  for (auto& file : files.files) found.files.push_back(std::move(file));
  for (auto& note : files.notes) found.notes.push_back(std::move(note));
  return {};
}

/// Whether the source can have configs and splits, and whether a revision means anything to it.
struct Meaning {
  bool parts = false, revision = false;
};

Result<Meaning> add_source(const std::string& source, const HubOptions& options,
                           data::FoundFiles& found) {
  if (source.empty()) return invalid_input("the source's name is empty");
  std::error_code ignored;
  if (exists_here(source)) {
    LORRY_TRY(add_local_files(source, options, found));
    return Meaning{fs::is_directory(source, ignored), false};
  }
  LORRY_ASSIGN(const auto place, parse_hub_place(source));
  if (place) {
    LORRY_TRY(add_hub_files(*place, options, found));
    return Meaning{place->path.empty(), true};
  }
  const std::string scheme = scheme_of(source);
  if (is_bucket_scheme(scheme)) {
    LORRY_TRY(add_bucket_files(source, options, found));
    return Meaning{true, false};
  }
  if (scheme == "https" || scheme == "http") {
    LORRY_TRY(add_url_file(source, found));
    return Meaning{};
  }
  if (!scheme.empty()) {
    return unsupported(fmt::format(
        "{}: {}:// is not a kind of source; there are https://, hf://, s3://, gs:// and az://",
        source, scheme));
  }
  LORRY_TRY(add_local_files(source, options, found));
  return Meaning{};
}

struct LookedUp {
  data::FoundFiles found;
  Meaning meaning;
};

/// A URL of a single file, which is asked for its size.
bool is_single_url(const std::string& source) {
  const std::string scheme = scheme_of(source);
  if (scheme != "https" && scheme != "http") return false;
  const auto place = parse_hub_place(source);
  return place.ok() && !*place && !exists_here(source);
}

/// What each source stands for, in their order. URLs are asked side by side, since a list may have
/// thousands.
Result<std::vector<LookedUp>> look_up(const std::vector<std::string>& sources,
                                      const HubOptions& options) {
  std::vector<LookedUp> all(sources.size());
  std::vector<size_t> urls;
  for (size_t i = 0; i < sources.size(); ++i) {
    if (is_single_url(sources[i])) {
      urls.push_back(i);
    } else {
      LORRY_ASSIGN(all[i].meaning, add_source(sources[i], options, all[i].found));
    }
  }
  LORRY_TRY(in_parallel(int64_t(urls.size()), kUrlsAtOnce, [&](int64_t i) {
    return add_url_file(sources[urls[size_t(i)]], all[urls[size_t(i)]].found);
  }));
  return all;
}

Result<> check_one_format(const data::FoundFiles& found) {
  for (const auto& file : found.files) {
    const auto& first = found.files[0];
    if (file.format == first.format) continue;
    return invalid_input(fmt::format("{} is {} and {} is {}; import one format at a time",
                                     first.path, data::format_name(first.format), file.path,
                                     data::format_name(file.format)));
  }
  return {};
}

/// Without format, compression and archive: "a" of a.jsonl.gz, a.jsonl.zip and a.tar.gz.
std::string stem_of_name(const std::string& name) {
  const fs::path stem = fs::path(data::without_compression(name)).stem();
  const bool names_member =
      data::format_of_name(name) == data::Format::kArchive && data::format_of_name(stem.string());
  return names_member ? stem.stem().string() : stem.string();
}

/// The stem of a path, without format and compression; of a folder or glob, the folder's name.
std::string stem_of_remote(std::string path) {
  path = path.substr(0, path.find_first_of("?#"));
  const bool folder = path.ends_with('/');
  while (path.ends_with('/')) path.pop_back();
  bool glob = false;
  while (hub::has_magic(path)) {
    glob = true;
    const size_t slash = path.rfind('/');
    path = slash == std::string::npos ? "" : path.substr(0, slash);
  }
  const std::string name = path.substr(path.rfind('/') + 1);
  if (folder || glob || !data::format_of_name(name)) return name;
  return stem_of_name(name);
}

}  // namespace

std::string scheme_of(const std::string& source) {
  const size_t colon = source.find("://");
  if (colon == std::string::npos || colon == 0) return "";
  std::string scheme = source.substr(0, colon);
  for (char& c : scheme) {
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '+' && c != '-' && c != '.') return "";
    c = char(std::tolower(static_cast<unsigned char>(c)));
  }
  return scheme;
}

Result<data::Format> format_of_named(const std::string& path) {
  if (const auto format = data::format_of_name(path)) return *format;
  return unsupported(
      fmt::format("{}: unknown extension; a data file ends in {}", path, data::kFormats));
}

Result<> refuse_foreign(const hub::DatasetQuestion& question) {
  if (question.readme.find("data_files") != std::string::npos) return {};
  return data::refuse_foreign_layout(question.what, question.paths);
}

void say_choice(const std::string& what, const hub::DatasetFiles& files) {
  log::info("{}: config {}, split {}, {} {} {}", what, files.config, files.split,
            files.paths.size(), files.module, files.paths.size() == 1 ? "file" : "files");
}

bool is_hub_source(const std::string& source) {
  return hub::is_repo_id(source) && !exists_here(source) && !data::format_of_name(source);
}

Result<data::FoundFiles> find_sources(const std::vector<std::string>& sources,
                                      const HubOptions& options) {
  LORRY_ASSIGN(const auto expanded, expand_lists(sources));
  LORRY_ASSIGN(auto looked_up, look_up(expanded, options));
  data::FoundFiles found;
  Meaning meaning;
  for (auto& one : looked_up) {
    std::move(one.found.files.begin(), one.found.files.end(), std::back_inserter(found.files));
    std::move(one.found.notes.begin(), one.found.notes.end(), std::back_inserter(found.notes));
    meaning.parts |= one.meaning.parts;
    meaning.revision |= one.meaning.revision;
  }
  if (found.files.empty()) {
    return usage_error("name at least one file, directory, URL or Hub data set to import");
  }
  const bool parts = !options.config.empty() || !options.split.empty();
  if (parts && !meaning.parts) {
    return usage_error(
        "--config and --split choose from a Hub data set or a directory; the source "
        "names files itself");
  }
  if (!options.revision.empty() && !meaning.revision) {
    return usage_error("--revision is for data sets of the Hub; the source is none");
  }
  LORRY_TRY(data::expand_archives(found));
  LORRY_TRY(check_one_format(found));
  return found;
}

std::string default_dataset_name(const std::string& source) {
  std::string trimmed = source;
  if (trimmed.starts_with('@')) trimmed = trimmed.substr(1);
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  std::error_code ignored;
  if (!exists_here(trimmed)) {
    if (const auto place = parse_hub_place(source); place.ok() && *place) return (*place)->id;
    const size_t scheme = source.find("://");
    if (scheme != std::string::npos) return stem_of_remote(source.substr(scheme + 3));
  }
  if (fs::is_directory(trimmed, ignored)) {
    return fs::weakly_canonical(trimmed, ignored).filename().string();
  }
  fs::path path(trimmed);
  if (hub::has_magic(trimmed)) {
    // A glob is named by the directory that it looks in.
    while (hub::has_magic(path.string())) path = path.parent_path();
    path = fs::weakly_canonical(path.empty() ? fs::path(".") : path, ignored);
    return path.filename().string();
  }
  return stem_of_name(path.filename().string());
}

}  // namespace lorry::sources
