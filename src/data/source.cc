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
#include "data/archive.h"
#include "data/file_names.h"
#include "data/foreign.h"
#include "store/arrow_error.h"

namespace lorry::data {
namespace {

namespace fs = std::filesystem;

bool is_glob(const std::string& path) { return path.find_first_of("*?[") != std::string::npos; }

/// A file as the kernel knows it, whatever links to it.
using FileId = std::pair<dev_t, ino_t>;

std::optional<FileId> id_of(const fs::path& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return std::nullopt;
  return FileId{info.st_dev, info.st_ino};
}

/// The regular files below a directory; hidden ones left out. A directory is not entered again
/// below itself, by whatever link.
class Walk {
 public:
  Result<std::vector<fs::path>> files_below(const fs::path& dir, std::vector<std::string>& notes) {
    LORRY_TRY(enter(dir));
    std::sort(found_.begin(), found_.end());
    std::sort(broken_.begin(), broken_.end());
    for (const auto& link : broken_) {
      notes.push_back(fmt::format(
          "{}: left out, it links to nothing; if git-annex or DVC keeps the data, fetch it first",
          link.string()));
    }
    return std::move(found_);
  }

 private:
  Result<> enter(const fs::path& dir) {
    const auto id = id_of(dir);
    if (id && std::find(inside_.begin(), inside_.end(), *id) != inside_.end()) return {};
    inside_.push_back(id.value_or(FileId{}));
    std::error_code error;
    fs::directory_iterator it(dir, error);
    for (; !error && it != fs::directory_iterator(); it.increment(error)) {
      LORRY_TRY(take(*it));
    }
    inside_.pop_back();
    if (!error) return {};
    return unavailable(fmt::format("cannot list {}: {}", dir.string(), error.message()));
  }

  Result<> take(const fs::directory_entry& entry) {
    std::error_code ignored;
    if (entry.path().filename().string().starts_with(".")) return {};
    if (entry.is_directory(ignored)) return enter(entry.path());
    if (entry.is_regular_file(ignored)) {
      found_.push_back(entry.path());
    } else if (entry.is_symlink(ignored) && !entry.exists(ignored) &&
               format_of_name(entry.path().string())) {
      broken_.push_back(entry.path());
    }
    return {};
  }

  std::vector<FileId> inside_;  ///< the directory that is read, and those around it
  std::vector<fs::path> found_, broken_;
};

bool is_through_link(const fs::path& path) {
  std::error_code error;
  return fs::canonical(path, error) != fs::absolute(path, error).lexically_normal();
}

/// Keeps one path of each file: its own rather than one through a link, else the first by name.
void keep_each_file_once(std::vector<fs::path>& files, std::vector<std::string>& notes) {
  std::map<FileId, fs::path> chosen;
  bool all_differ = true;
  for (const auto& file : files) {
    const auto id = id_of(file);
    if (!id) continue;
    const auto [known, is_new] = chosen.emplace(*id, file);
    all_differ &= is_new;
    if (!is_new && is_through_link(known->second) && !is_through_link(file)) known->second = file;
  }
  if (all_differ) return;
  std::erase_if(files, [&](const fs::path& file) {
    const auto id = id_of(file);
    if (!id || chosen.at(*id) == file) return false;
    notes.push_back(
        fmt::format("{}: left out, the same file as {}", file.string(), chosen.at(*id).string()));
    return true;
  });
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

Result<std::vector<fs::path>> expand_glob(const std::string& glob,
                                          std::vector<std::string>& notes) {
  fs::path base;
  const fs::path pattern(glob);
  for (const auto& part : pattern) {
    if (is_glob(part.string())) break;
    base /= part;
  }
  const fs::path start = base.empty() ? fs::path(".") : base;
  if (!fs::is_directory(start)) return std::vector<fs::path>();
  std::vector<std::string> not_asked_for;
  LORRY_ASSIGN(auto files, Walk().files_below(start, not_asked_for));
  const auto wanted = parts_of(pattern);
  std::vector<fs::path> found;
  for (const auto& file : files) {
    if (matches(wanted, 0, parts_of(file), 0)) found.push_back(file);
  }
  keep_each_file_once(found, notes);
  return found;
}

/// Keeps the train split where the names tell splits apart.
void keep_train_split(const fs::path& dir, std::vector<fs::path>& files,
                      std::vector<std::string>& notes) {
  std::vector<std::string> names;
  for (const auto& file : files) names.push_back(file.lexically_relative(dir).generic_string());
  for (const auto& other : names_beside_train(names)) {
    std::erase_if(files, [&](const fs::path& file) {
      return file.lexically_relative(dir).generic_string() == other;
    });
    notes.push_back(fmt::format("{}: left out, not of the train split; name it to import it",
                                (dir / other).string()));
  }
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

/// All of them if there is nothing else.
void leave_out_caches(std::vector<fs::path>& files, std::vector<std::string>& notes) {
  const auto is_cache = [](const fs::path& file) { return is_cache_of_datasets(file.string()); };
  if (std::all_of(files.begin(), files.end(), is_cache)) return;
  std::erase_if(files, [&](const fs::path& file) {
    if (!is_cache(file)) return false;
    notes.push_back(fmt::format("{}: left out, a cache of `datasets`", file.string()));
    return true;
  });
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
  LORRY_ASSIGN(auto paths, Walk().files_below(dir, notes));
  std::vector<std::string> names;
  for (const auto& path : paths) names.push_back(path.lexically_relative(dir).generic_string());
  LORRY_TRY(refuse_foreign_layout(dir.string(), names));
  std::erase_if(paths, [](const fs::path& path) {
    return is_metadata(path.filename().string()) || !format_of_name(path.string());
  });
  leave_out_caches(paths, notes);
  keep_each_file_once(paths, notes);
  keep_train_split(dir, paths, notes);
  std::vector<SourceFile> files;
  for (const auto& path : paths) {
    LORRY_ASSIGN(auto file, local_file(path.string(), *format_of_name(path.string())));
    files.push_back(std::move(file));
  }
  if (files.empty()) {
    return not_found(fmt::format("{} holds no data files ({})", dir.string(), kFormats));
  }
  return keep_one_format(std::move(files), notes);
}

Result<SourceFile> named_file(const fs::path& path) {
  const auto format = format_of_name(path.string());
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
  LORRY_ASSIGN(auto paths, expand_glob(source, notes));
  std::vector<SourceFile> files;
  for (const auto& path : paths) {
    if (!format_of_name(path.string()) && paths.size() > 1) {
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
    case Format::kArchive:
      return "archives";
  }
  return "";
}

Result<FoundFiles> find_files(const std::vector<std::string>& sources) {
  FoundFiles found;
  for (const auto& source : sources) {
    LORRY_ASSIGN(auto files, files_of(source, found.notes));
    for (auto& file : files) found.files.push_back(std::move(file));
  }
  LORRY_TRY(expand_archives(found));
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
