// Sources on the Hugging Face Hub.
#include <arrow/io/interfaces.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/log.h"
#include "hub/access.h"
#include "hub/glob.h"
#include "hub/hub.h"
#include "net/http.h"
#include "net/ranges.h"
#include "sources/source_kinds.h"

namespace lorry::sources {
namespace {

constexpr char kDatasets[] = "hf://datasets/";

using Files = std::map<std::string, hub::RepoFile>;

/// What stands between '@' and the path: refs/convert/parquet and refs/pr/1 have slashes.
std::string take_revision(std::string& rest) {
  size_t end = rest.find('/');
  for (const char* special : {"refs/convert/", "refs/pr/"}) {
    if (rest.starts_with(special)) end = rest.find('/', std::string(special).size());
  }
  const std::string revision = net::url_decode(rest.substr(0, end));
  rest = end == std::string::npos ? "" : rest.substr(end + 1);
  return revision;
}

/// owner/name[@revision][/path]
Result<HubPlace> parse_place(const std::string& text, const std::string& source) {
  HubPlace place;
  const size_t slash = text.find('/');
  const size_t end = slash == std::string::npos
                         ? text.size()
                         : std::min(text.find_first_of("/@", slash + 1), text.size());
  place.id = text.substr(0, end);
  if (!hub::is_repo_id(place.id)) {
    return usage_error(fmt::format(
        "{}: a data set of the Hub is hf://datasets/OWNER/NAME[@REVISION][/PATH]", source));
  }
  std::string rest = end < text.size() ? text.substr(end + 1) : "";
  if (end < text.size() && text[end] == '@') place.revision = take_revision(rest);
  place.path = rest;
  return place;
}

/// {endpoint}/datasets/owner/name[/(resolve|blob|raw|tree)/revision/path]: what a browser shows.
std::optional<HubPlace> parse_page(const std::string& source) {
  for (const auto& endpoint : {hub::find_access().endpoint, hub::Access().endpoint}) {
    const std::string prefix = endpoint + "/datasets/";
    if (!source.starts_with(prefix)) continue;
    std::string rest = source.substr(prefix.size());
    rest = rest.substr(0, rest.find_first_of("?#"));
    while (rest.ends_with('/')) rest.pop_back();
    const size_t name = rest.find('/');
    const size_t end = name == std::string::npos ? name : rest.find('/', name + 1);
    HubPlace place;
    place.id = rest.substr(0, end);
    if (!hub::is_repo_id(place.id)) return std::nullopt;
    if (end == std::string::npos) return place;
    rest = rest.substr(end + 1);
    const size_t verb = rest.find('/');
    const std::string word = rest.substr(0, verb);
    if (verb == std::string::npos ||
        (word != "resolve" && word != "blob" && word != "raw" && word != "tree")) {
      return std::nullopt;
    }
    rest = rest.substr(verb + 1);
    place.revision = take_revision(rest);
    place.path = net::url_decode(rest);
    return place;
  }
  return std::nullopt;
}

data::SourceFile source_file(const hub::Hub& hub, const hub::Repo& repo, const hub::RepoFile& file,
                             data::Format format) {
  data::SourceFile source;
  source.path = hub::Hub::file_name(repo, file.path);
  source.format = format;
  source.size = file.size;
  source.version = file.sha256.empty() ? file.oid : file.sha256;
  source.remote = true;
  // One for all that open it: it keeps the place that the Hub redirects to.
  source.open = [range = net::keep_small(hub.open(
                     repo, file))]() -> Result<std::shared_ptr<arrow::io::RandomAccessFile>> {
    return net::open_range_file(range);
  };
  return source;
}

Result<data::Format> format_of_module(const std::string& module, const std::string& path) {
  if (data::format_of_name(path) == data::Format::kArchive) return data::Format::kArchive;
  if (module == "json") return data::Format::kJson;
  if (module == "parquet") return data::Format::kParquet;
  if (module == "arrow") return data::Format::kArrow;
  const auto format = data::format_of_name(path);
  return format == data::Format::kTsv || path.find(".tsv") != std::string::npos
             ? data::Format::kTsv
             : data::Format::kCsv;
}

Result<> add_dataset(const hub::Hub& hub, const hub::Repo& repo, const Files& files,
                     const HubOptions& options, data::FoundFiles& found) {
  hub::DatasetQuestion question;
  question.what = repo.id;
  question.config = options.config;
  question.split = options.split;
  for (const auto& [path, file] : files) question.paths.push_back(path);
  const auto read = [&](const char* name, std::string& into) -> Result<> {
    if (!files.contains(name)) return {};
    LORRY_ASSIGN(auto text, hub.read(repo, name));
    if (text) into = std::move(*text);
    return {};
  };
  LORRY_TRY(read("README.md", question.readme));
  LORRY_TRY(read(".huggingface.yaml", question.yaml));
  LORRY_TRY(refuse_foreign(question));
  LORRY_ASSIGN(auto chosen, hub::resolve_dataset(question));
  for (const auto& path : chosen.paths) {
    LORRY_ASSIGN(const auto format, format_of_module(chosen.module, path));
    found.files.push_back(source_file(hub, repo, files.at(path), format));
  }
  for (auto& note : chosen.notes) found.notes.push_back(std::move(note));
  say_choice(fmt::format("{} at {}", repo.id, repo.commit.substr(0, 12)), chosen);
  return {};
}

/// A file, a glob, or everything in a folder.
Result<> add_path(const hub::Hub& hub, const hub::Repo& repo, const Files& files, std::string path,
                  data::FoundFiles& found) {
  if (files.contains(path)) {
    LORRY_ASSIGN(const auto format, format_of_named(path));
    found.files.push_back(source_file(hub, repo, files.at(path), format));
    return {};
  }
  while (path.ends_with('/')) path.pop_back();
  const std::string pattern = hub::has_magic(path) ? path : path + "/**";
  size_t matched = 0;
  for (const auto& [name, file] : files) {
    if (!hub::glob_match(pattern, name)) continue;
    const auto format = data::format_of_name(name);
    if (!format) {
      found.notes.push_back(fmt::format("{}: left out, not a data file", name));
      continue;
    }
    ++matched;
    found.files.push_back(source_file(hub, repo, file, *format));
  }
  if (matched > 0) return {};
  return not_found(fmt::format("{} has no data file {} at revision {}; see {}/tree/{}", repo.id,
                               path, repo.revision, hub.page(repo.kind, repo.id), repo.revision));
}

}  // namespace

Result<std::optional<HubPlace>> parse_hub_place(const std::string& source) {
  if (source.starts_with(kDatasets)) {
    LORRY_ASSIGN(auto place, parse_place(source.substr(sizeof(kDatasets) - 1), source));
    return std::optional<HubPlace>(std::move(place));
  }
  if (source.starts_with("hf://")) {
    return usage_error(fmt::format(
        "{}: a data set of the Hub is hf://datasets/OWNER/NAME[@REVISION][/PATH]", source));
  }
  if (auto page = parse_page(source)) return std::optional<HubPlace>(std::move(*page));
  if (is_hub_source(source)) return std::optional<HubPlace>(HubPlace{source, "", ""});
  return std::optional<HubPlace>();
}

Result<> add_hub_files(const HubPlace& place, const HubOptions& options, data::FoundFiles& found) {
  if (!place.revision.empty() && !options.revision.empty() && place.revision != options.revision) {
    return usage_error(fmt::format("{} is asked for at {} and at --revision {}", place.id,
                                   place.revision, options.revision));
  }
  const hub::Hub hub(hub::find_access());
  const std::string& revision = place.revision.empty() ? options.revision : place.revision;
  LORRY_ASSIGN(const auto repo, hub.resolve(hub::RepoKind::kDataset, place.id, revision));
  LORRY_ASSIGN(auto list, hub.list(repo));
  Files files;
  for (auto& file : list) files.emplace(file.path, std::move(file));
  if (!place.path.empty()) return add_path(hub, repo, files, place.path, found);
  return add_dataset(hub, repo, files, options, found);
}

}  // namespace lorry::sources
