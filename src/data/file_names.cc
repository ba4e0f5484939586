#include "data/file_names.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>

namespace lorry::data {
namespace {

namespace fs = std::filesystem;

std::string lower(std::string text) {
  for (char& c : text) c = char(std::tolower(static_cast<unsigned char>(c)));
  return text;
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

}  // namespace

std::string without_compression(const std::string& name) {
  static constexpr std::array kCompressed = {".gz", ".zst", ".bz2", ".xz", ".lzma"};
  const fs::path path(name);
  const std::string extension = lower(path.extension().string());
  const bool compressed =
      std::find(kCompressed.begin(), kCompressed.end(), extension) != kCompressed.end();
  return compressed ? path.parent_path() / path.stem() : path;
}

std::optional<Format> format_of_name(const std::string& given) {
  const fs::path name = lower(without_compression(fs::path(given).filename().string()));
  static const std::map<std::string, Format> kByExtension = {
      {".jsonl", Format::kJson},  {".ndjson", Format::kJson},  {".json", Format::kJson},
      {".csv", Format::kCsv},     {".tsv", Format::kTsv},      {".parquet", Format::kParquet},
      {".pq", Format::kParquet},  {".arrow", Format::kArrow},  {".feather", Format::kArrow},
      {".ipc", Format::kArrow},   {".zip", Format::kArchive},  {".tar", Format::kArchive},
      {".tgz", Format::kArchive}, {".tbz2", Format::kArchive}, {".txz", Format::kArchive}};
  const auto found = kByExtension.find(name.extension().string());
  if (found == kByExtension.end()) return std::nullopt;
  return found->second;
}

bool is_metadata(const std::string& name) {
  static constexpr std::array kNames = {"dataset_info.json", "dataset_infos.json", "state.json",
                                        "dataset_dict.json", "config.json",        "info.json"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

std::vector<std::string> names_beside_train(const std::vector<std::string>& names) {
  size_t train = 0;
  std::vector<std::string> others;
  for (const auto& given : names) {
    const std::string name = lower(given);
    if (has_any_word(name, {"train", "training"})) {
      ++train;
    } else if (has_any_word(name, {"test", "testing", "eval", "evaluation", "validation", "valid",
                                   "val", "dev"})) {
      others.push_back(given);
    }
  }
  const bool all_told = train > 0 && train + others.size() == names.size();
  return all_told ? others : std::vector<std::string>();
}

}  // namespace lorry::data
