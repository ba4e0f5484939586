#include "hub/patterns.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "hub/formats.h"
#include "hub/glob.h"

namespace lorry::hub {
namespace {

constexpr char kShardSuffix[] = "-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9]*.*";
constexpr char kSeparators[] = "[-._ 0-9]";
constexpr std::array<std::string_view, 6> kIgnored = {"README.md",         "config.json",
                                                      "dataset_info.json", "dataset_infos.json",
                                                      "dummy_data.zip",    "dataset_dict.json"};

struct Keywords {
  const char* split;
  std::vector<std::string> words;
};
const std::vector<Keywords>& keywords() {
  static const std::vector<Keywords> kKeywords = {
      {"train", {"train", "training"}},
      {"validation", {"validation", "valid", "dev", "val"}},
      {"test", {"test", "testing", "eval", "evaluation"}}};
  return kKeywords;
}

std::string_view base_name(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

std::vector<std::string_view> parts_of(std::string_view path) {
  std::vector<std::string_view> parts;
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    if (end > at) parts.push_back(path.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

/// Parts that begin with a dot, and folders that begin with two underscores.
std::pair<int64_t, int64_t> special_parts(std::string_view path) {
  const auto parts = parts_of(path);
  int64_t hidden = 0, special = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].starts_with('.') && parts[i].find_first_not_of('.') != std::string_view::npos) {
      ++hidden;
    }
    if (i + 1 < parts.size() && parts[i].starts_with("__")) ++special;
  }
  return {hidden, special};
}

Result<> check_stars(const std::string& pattern) {
  for (const auto part : parts_of(pattern)) {
    if (part != "**" && part.find("**") != std::string_view::npos) {
      return invalid_input(
          fmt::format("the pattern '{}' is not valid: '**' must be a whole folder name, as in "
                      "data/**/*.parquet",
                      pattern));
    }
  }
  return {};
}

/// The split that a name like train-00000-of-00001.parquet tells: what is before the last such
/// numbers.
std::string split_of_shard(std::string_view name) {
  static constexpr char kShape[] = "-00000-of-0000";  // the fifth digit may be any character
  static constexpr size_t kLength = sizeof(kShape) - 1;
  for (size_t at = name.size(); at-- > 1;) {
    if (at + kLength > name.size()) continue;
    bool fits = true;
    for (size_t i = 0; i < kLength && fits; ++i) {
      const char c = name[at + i];
      fits = kShape[i] == '0' ? c >= '0' && c <= '9' : c == kShape[i];
    }
    if (fits) return std::string(name.substr(0, at));
  }
  return "";
}

Splits folder_patterns() {
  Splits splits;
  for (const auto& [split, words] : keywords()) {
    auto& patterns = splits.emplace_back(split, std::vector<std::string>()).second;
    for (const auto& word : words) {
      patterns.push_back(fmt::format("**/{}/**", word));
      patterns.push_back(fmt::format("**/{}{}*/**", word, kSeparators));
      patterns.push_back(fmt::format("**/*{}{}/**", kSeparators, word));
      patterns.push_back(fmt::format("**/*{0}{1}{0}*/**", kSeparators, word));
    }
  }
  return splits;
}

Splits file_name_patterns() {
  Splits splits;
  for (const auto& [split, words] : keywords()) {
    auto& patterns = splits.emplace_back(split, std::vector<std::string>()).second;
    for (const auto& word : words) {
      patterns.push_back(fmt::format("**/{}{}*", word, kSeparators));
      patterns.push_back(fmt::format("**/*{0}{1}{0}*", kSeparators, word));
    }
  }
  return splits;
}

/// In the order in which they are tried; the first with any file is it.
const std::vector<Splits>& pattern_families() {
  static const std::vector<Splits> kFamilies = {{{"logs", {"**/*.eval"}}},
                                                {{"test", {"**/task.toml", "**/instruction.md"}}},
                                                folder_patterns(),
                                                file_name_patterns(),
                                                {{"train", {"**"}}}};
  return kFamilies;
}

/// Splits named by data/{split}-00000-of-00001.*: train, validation, test, then by name.
Result<Splits> shard_patterns(const std::string& base, const std::vector<std::string>& paths) {
  LORRY_ASSIGN(const auto files,
               resolve_pattern(std::string("data/*") + kShardSuffix, base, paths));
  std::set<std::string> names;
  for (const auto& file : files) names.insert(split_of_shard(base_name(file)));
  Splits splits;
  const auto add = [&](const std::string& name) {
    splits.emplace_back(name, std::vector<std::string>{"data/" + name + kShardSuffix});
  };
  for (const auto& name : names) {
    if (is_split_name(name)) continue;
    return invalid_input(fmt::format(
        "'{}' (of data/{}-00000-of-...) cannot be a split's name: letters, digits and _ only", name,
        name));
  }
  for (const auto& known : keywords()) {
    if (names.erase(known.split) > 0) add(known.split);
  }
  for (const auto& name : names) add(name);
  return splits;
}

Result<std::vector<std::string>> strings_of(const Json& value, const std::string& what) {
  if (value.is_string()) return std::vector<std::string>{value.get<std::string>()};
  std::vector<std::string> strings;
  if (value.is_array()) {
    for (const auto& one : value) {
      if (!one.is_string()) break;
      strings.push_back(one.get<std::string>());
    }
    if (strings.size() == value.size()) return strings;
  }
  return invalid_input(
      fmt::format("{}: data_files must be paths or {{split, path}} entries, not {}", what,
                  dump_json(value).substr(0, 100)));
}

std::string text_of(const Json& value) {
  return value.is_string() ? value.get<std::string>() : dump_json(value);
}

}  // namespace

bool is_split_name(const std::string& name) {
  bool after_word = false;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '.') {
      if (!after_word) return false;
      after_word = false;
    } else if (std::isalnum(byte) || c == '_' || byte >= 0x80) {
      after_word = true;
    } else {
      return false;
    }
  }
  return after_word;
}

std::string join_folder(const std::string& base, const std::string& folder) {
  std::string joined;
  for (const auto& path : {base, folder}) {
    for (const auto part : parts_of(path)) {
      if (part == ".") continue;
      if (!joined.empty()) joined += '/';
      joined += part;
    }
  }
  return joined;
}

Result<std::vector<std::string>> resolve_pattern(const std::string& pattern,
                                                 const std::string& base,
                                                 const std::vector<std::string>& paths) {
  LORRY_TRY(check_stars(pattern));
  const std::string whole = join_folder(base, pattern);
  const std::string_view own_name = base_name(whole);
  const auto wanted = special_parts(whole);
  const bool magic = has_magic(whole);
  std::vector<std::string> found;
  if (pattern.ends_with('/')) return found;  // folders only
  for (const auto& path : paths) {
    if (magic ? !glob_match(whole, path) : path != whole) continue;
    const std::string_view name = base_name(path);
    const bool ignored =
        name != own_name && std::find(kIgnored.begin(), kIgnored.end(), name) != kIgnored.end();
    if (ignored || special_parts(path) != wanted || !has_data_extension(path)) continue;
    found.push_back(path);
  }
  std::sort(found.begin(), found.end());
  return found;
}

Result<Splits> resolve_patterns(const Splits& patterns, const std::string& base,
                                const std::vector<std::string>& paths) {
  Splits splits;
  for (const auto& [split, list] : patterns) {
    auto& files = splits.emplace_back(split, std::vector<std::string>()).second;
    for (const auto& pattern : list) {
      LORRY_ASSIGN(const auto found, resolve_pattern(pattern, base, paths));
      if (found.empty() && !has_magic(pattern)) {
        return not_found(fmt::format("no data file {}", join_folder(base, pattern)));
      }
      files.insert(files.end(), found.begin(), found.end());
    }
  }
  return splits;
}

Result<Splits> default_patterns(const std::string& base, const std::vector<std::string>& paths) {
  LORRY_ASSIGN(auto shards, shard_patterns(base, paths));
  if (!shards.empty()) return shards;
  for (const auto& family : pattern_families()) {
    Splits splits;
    for (const auto& [split, patterns] : family) {
      for (const auto& pattern : patterns) {
        LORRY_ASSIGN(const auto found, resolve_pattern(pattern, base, paths));
        if (found.empty()) continue;
        splits.emplace_back(split, patterns);
        break;
      }
    }
    if (!splits.empty()) return splits;
  }
  return not_found(base.empty() ? std::string("no data files") : "no data files in " + base);
}

Result<Splits> patterns_of(const Json& data_files, const std::string& what) {
  Splits splits;
  const bool entries =
      data_files.is_array() && std::any_of(data_files.begin(), data_files.end(),
                                           [](const Json& entry) { return entry.is_object(); });
  if (!entries && !data_files.is_object()) {
    LORRY_ASSIGN(auto patterns, strings_of(data_files, what));
    splits.emplace_back("train", std::move(patterns));
    return splits;
  }
  const auto add = [&](const std::string& split, const Json& path) -> Result<> {
    for (const auto& [known, ignored] : splits) {
      if (known == split) return invalid_input(fmt::format("{}: two splits '{}'", what, split));
    }
    if (!is_split_name(split)) {
      return invalid_input(fmt::format("{}: '{}' cannot be a split's name", what, split));
    }
    LORRY_ASSIGN(auto patterns, strings_of(path, what));
    splits.emplace_back(split, std::move(patterns));
    return {};
  };
  if (data_files.is_object()) {
    for (const auto& [split, path] : data_files.items()) LORRY_TRY(add(split, path));
    return splits;
  }
  for (const auto& entry : data_files) {
    if (!entry.is_object() || !entry.contains("split") || !entry.contains("path")) {
      return invalid_input(fmt::format("{}: data_files has {}, which is no {{split, path}}", what,
                                       dump_json(entry).substr(0, 100)));
    }
    LORRY_TRY(add(text_of(entry["split"]), entry["path"]));
  }
  return splits;
}

}  // namespace lorry::hub
