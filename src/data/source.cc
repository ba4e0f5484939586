#include "data/source.h"

#include <arrow/io/file.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fnmatch.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/crc32c.h"
#include "base/json.h"
#include "store/arrow_error.h"

namespace lorry::data {
namespace {

namespace fs = std::filesystem;

constexpr char kFormats[] =
    ".jsonl, .ndjson, .json, .csv, .tsv, .parquet or .arrow, each also .gz or .zst";

std::string lower(std::string text) {
  for (char& c : text) c = char(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

std::optional<Format> format_of(const fs::path& path) {
  fs::path name = lower(path.filename().string());
  if (name.extension() == ".gz" || name.extension() == ".zst") name = name.stem();
  static const std::map<std::string, Format> kByExtension = {
      {".jsonl", Format::kJson}, {".ndjson", Format::kJson}, {".json", Format::kJson},
      {".csv", Format::kCsv},    {".tsv", Format::kTsv},     {".parquet", Format::kParquet},
      {".pq", Format::kParquet}, {".arrow", Format::kArrow}, {".feather", Format::kArrow},
      {".ipc", Format::kArrow}};
  const auto found = kByExtension.find(name.extension().string());
  if (found == kByExtension.end()) return std::nullopt;
  return found->second;
}

/// JSON files that stand beside data in many directories and are none.
bool is_metadata(const std::string& name) {
  static constexpr std::array kNames = {"dataset_info.json", "dataset_infos.json", "state.json",
                                        "dataset_dict.json", "config.json",        "info.json"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

bool is_glob(const std::string& path) { return path.find_first_of("*?[") != std::string::npos; }

/// Every regular file below `dir`, by path; hidden ones left out.
Result<std::vector<fs::path>> walk(const fs::path& dir) {
  std::vector<fs::path> found;
  std::error_code error;
  fs::recursive_directory_iterator it(dir, fs::directory_options::follow_directory_symlink, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    const std::string name = it->path().filename().string();
    std::error_code ignored;
    if (name.starts_with(".")) {
      if (it->is_directory(ignored)) it.disable_recursion_pending();
    } else if (it->is_regular_file(ignored)) {
      found.push_back(it->path());
    }
  }
  if (error) {
    return unavailable(fmt::format("cannot list {}: {}", dir.string(), error.message()));
  }
  std::sort(found.begin(), found.end());
  return found;
}

/// fnmatch a path part by part, `**` standing for any number of directories.
bool matches(const std::vector<std::string>& pattern, size_t p,
             const std::vector<std::string>& path, size_t q) {
  if (p == pattern.size()) return q == path.size();
  if (pattern[p] == "**") {
    for (size_t skip = q; skip <= path.size(); ++skip) {
      if (matches(pattern, p + 1, path, skip)) return true;
    }
    return false;
  }
  return q < path.size() && ::fnmatch(pattern[p].c_str(), path[q].c_str(), FNM_PERIOD) == 0 &&
         matches(pattern, p + 1, path, q + 1);
}

std::vector<std::string> parts_of(const fs::path& path) {
  std::vector<std::string> parts;
  for (const auto& part : path) {
    if (!part.empty() && part != ".") parts.push_back(part.string());
  }
  return parts;
}

Result<std::vector<fs::path>> expand_glob(const std::string& glob) {
  fs::path base;
  const fs::path pattern(glob);
  for (const auto& part : pattern) {
    if (is_glob(part.string())) break;
    base /= part;
  }
  const fs::path start = base.empty() ? fs::path(".") : base;
  if (!fs::is_directory(start)) return std::vector<fs::path>();
  LORRY_ASSIGN(auto files, walk(start));
  const auto wanted = parts_of(pattern);
  std::vector<fs::path> found;
  for (const auto& file : files) {
    if (matches(wanted, 0, parts_of(file), 0)) found.push_back(file);
  }
  return found;
}

/// Does `word` stand in the name between characters that are neither letters nor digits?
bool has_word(const std::string& name, std::string_view word) {
  for (size_t at = name.find(word); at != std::string::npos; at = name.find(word, at + 1)) {
    const size_t end = at + word.size();
    const bool opens = at == 0 || !std::isalpha(static_cast<unsigned char>(name[at - 1]));
    const bool closes = end == name.size() || !std::isalpha(static_cast<unsigned char>(name[end]));
    if (opens && closes) return true;
  }
  return false;
}

bool has_any_word(const std::string& name, std::initializer_list<std::string_view> words) {
  return std::any_of(words.begin(), words.end(), [&](auto word) { return has_word(name, word); });
}

/// Keeps the train split where the names tell splits apart.
void keep_train_split(const fs::path& dir, std::vector<fs::path>& files,
                      std::vector<std::string>& notes) {
  std::vector<fs::path> train, others;
  for (const auto& file : files) {
    const std::string name = lower(fs::relative(file, dir).string());
    if (has_any_word(name, {"train", "training"})) {
      train.push_back(file);
    } else if (has_any_word(name, {"test", "testing", "eval", "evaluation", "validation", "valid",
                                   "val", "dev"})) {
      others.push_back(file);
    }
  }
  if (train.empty() || others.empty() || train.size() + others.size() != files.size()) return;
  for (const auto& file : others) {
    notes.push_back(
        fmt::format("{}: left out, not of the train split; name it to import it", file.string()));
  }
  files = std::move(train);
}

/// The data files of a `save_to_disk` directory, in the order of its state.json.
Result<std::vector<SourceFile>> saved_shard(const fs::path& dir) {
  const fs::path state_path = dir / "state.json";
  std::ifstream in(state_path);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  LORRY_ASSIGN(const Json state, parse_json(text, state_path.string()));
  std::vector<SourceFile> files;
  if (!state.contains("_data_files") || !state["_data_files"].is_array()) {
    return corrupt_data(fmt::format("{}: no _data_files", state_path.string()));
  }
  for (const auto& file : state["_data_files"]) {
    const fs::path path = dir / file.value("filename", "");
    if (!fs::is_regular_file(path)) {
      return corrupt_data(
          fmt::format("{} names {}, which is not there", state_path.string(), path.string()));
    }
    LORRY_ASSIGN(auto described, local_file(path.string(), Format::kArrow));
    files.push_back(std::move(described));
  }
  return files;
}

/// One format a directory: the commonest, as `datasets` takes it.
std::vector<SourceFile> keep_one_format(std::vector<SourceFile> files,
                                        std::vector<std::string>& notes) {
  std::map<Format, int64_t> counts;
  for (const auto& file : files) ++counts[file.format];
  if (counts.size() < 2) return files;
  const auto most = std::max_element(counts.begin(), counts.end(),
                                     [](auto& a, auto& b) { return a.second < b.second; });
  std::vector<SourceFile> kept;
  for (auto& file : files) {
    if (file.format == most->first) {
      kept.push_back(std::move(file));
    } else {
      notes.push_back(
          fmt::format("{}: left out, most files are {}", file.path, format_name(most->first)));
    }
  }
  return kept;
}

Result<std::vector<SourceFile>> directory_files(const fs::path& dir,
                                                std::vector<std::string>& notes) {
  if (fs::is_regular_file(dir / "state.json")) return saved_shard(dir);
  if (fs::is_regular_file(dir / "dataset_dict.json")) {
    if (!fs::is_directory(dir / "train")) {
      return not_found(
          fmt::format("{} has no train split; name the split's directory", dir.string()));
    }
    notes.push_back(fmt::format("{}: the train split is taken", dir.string()));
    return saved_shard(dir / "train");
  }
  LORRY_ASSIGN(auto paths, walk(dir));
  std::erase_if(paths, [](const fs::path& path) {
    return is_metadata(path.filename().string()) || !format_of(path);
  });
  keep_train_split(dir, paths, notes);
  std::vector<SourceFile> files;
  for (const auto& path : paths) {
    LORRY_ASSIGN(auto file, local_file(path.string(), *format_of(path)));
    files.push_back(std::move(file));
  }
  if (files.empty()) {
    return not_found(fmt::format("{} holds no data files ({})", dir.string(), kFormats));
  }
  return keep_one_format(std::move(files), notes);
}

Result<SourceFile> named_file(const fs::path& path) {
  const auto format = format_of(path);
  if (!format) {
    return unsupported(
        fmt::format("{}: unknown extension; a data file ends in {}", path.string(), kFormats));
  }
  return local_file(path.string(), *format);
}

Result<std::vector<SourceFile>> files_of(const std::string& source,
                                         std::vector<std::string>& notes) {
  if (source.empty()) return invalid_input("the source's name is empty");
  if (fs::is_directory(source)) return directory_files(source, notes);
  if (fs::exists(source)) {
    LORRY_ASSIGN(auto file, named_file(source));
    return std::vector<SourceFile>{std::move(file)};
  }
  if (source.find("://") != std::string::npos) {
    return unsupported(
        fmt::format("{}: URLs are not supported yet; download it and name the local file", source));
  }
  if (!is_glob(source)) {
    return not_found(fmt::format("{}: no such file or directory", source));
  }
  LORRY_ASSIGN(auto paths, expand_glob(source));
  std::vector<SourceFile> files;
  for (const auto& path : paths) {
    if (!format_of(path) && paths.size() > 1) {
      notes.push_back(fmt::format("{}: left out, not a data file", path.string()));
      continue;
    }
    LORRY_ASSIGN(auto file, named_file(path));
    files.push_back(std::move(file));
  }
  if (files.empty()) return not_found(fmt::format("{}: no file matches", source));
  return files;
}

/// What a local file holds, as eight digits. Not its time: a file that travels to another machine
/// has another one there, and what was made of it would count as old.
Result<std::string> content_version(const std::string& path) {
  constexpr int64_t kPiece = 4 << 20;
  LORRY_ASSIGN(auto file, store::from_arrow(arrow::io::ReadableFile::Open(path), path));
  std::vector<char> piece(kPiece);
  uint32_t crc = 0;
  for (;;) {
    LORRY_ASSIGN(const int64_t n, store::from_arrow(file->Read(kPiece, piece.data()), path));
    if (n == 0) return crc32c_hex(crc);
    crc = crc32c(crc, piece.data(), size_t(n));
  }
}

}  // namespace

std::optional<Format> format_of_name(const std::string& name) { return format_of(name); }

Result<SourceFile> local_file(const std::string& path, Format format) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) {
    return unavailable(fmt::format("cannot read {}: {}", path, std::strerror(errno)));
  }
  SourceFile file;
  file.path = path;
  file.format = format;
  file.size = int64_t(info.st_size);
  // What is no regular file can be read once only.
  if (S_ISREG(info.st_mode)) {
    LORRY_ASSIGN(file.version, content_version(path));
  }
  file.open = [path]() -> Result<std::shared_ptr<arrow::io::RandomAccessFile>> {
    LORRY_ASSIGN(auto opened, store::from_arrow(arrow::io::ReadableFile::Open(path), path));
    return std::shared_ptr<arrow::io::RandomAccessFile>(std::move(opened));
  };
  return file;
}

std::string_view format_name(Format format) {
  switch (format) {
    case Format::kJson:
      return "JSON";
    case Format::kCsv:
      return "CSV";
    case Format::kTsv:
      return "TSV";
    case Format::kParquet:
      return "Parquet";
    case Format::kArrow:
      return "Arrow";
  }
  return "";
}

Result<FoundFiles> find_files(const std::vector<std::string>& sources) {
  FoundFiles found;
  for (const auto& source : sources) {
    LORRY_ASSIGN(auto files, files_of(source, found.notes));
    for (auto& file : files) found.files.push_back(std::move(file));
  }
  if (found.files.empty())
    return usage_error("name at least one file, directory or glob to import");
  for (const auto& file : found.files) {
    if (file.format == found.files[0].format) continue;
    return invalid_input(fmt::format("{} is {} and {} is {}; import one format at a time",
                                     found.files[0].path, format_name(found.files[0].format),
                                     file.path, format_name(file.format)));
  }
  return found;
}

}  // namespace lorry::data
