#include "hub/dataset_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/json.h"
#include "hub/formats.h"
#include "hub/patterns.h"
#include "hub/yaml.h"

namespace lorry::hub {
namespace {

constexpr size_t kMaxNotes = 20;

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// Length of the line break at `at`; 0 if there is none.
size_t line_break(std::string_view text, size_t at) {
  if (text.substr(at, 2) == "\r\n") return 2;
  return at < text.size() && (text[at] == '\n' || text[at] == '\r') ? 1 : 0;
}

/// Whether `---` and nothing but blanks stand from `at` to the end of the line.
bool is_closing_fence(std::string_view text, size_t at) {
  if (text.substr(at, 3) != "---") return false;
  const size_t end = std::min(text.find_first_not_of(" \t", at + 3), text.size());
  return end == text.size() || text[end] == '\n' || text.substr(end, 2) == "\r\n";
}

/// The block between the `---` lines that a README begins with, as huggingface_hub finds it; empty
/// if it has none.
std::string_view front_matter(std::string_view readme) {
  if (readme.starts_with(kByteOrderMark)) readme.remove_prefix(kByteOrderMark.size());
  const size_t at = std::min(readme.find_first_not_of(" \t\r\n\f\v"), readme.size());
  if (readme.substr(at, 3) != "---" || line_break(readme, at + 3) == 0) return {};
  const size_t begin = at + 3 + line_break(readme, at + 3);
  for (size_t end = begin; end < readme.size(); ++end) {
    const size_t size = line_break(readme, end);
    if (size > 0 && is_closing_fence(readme, end + size)) return readme.substr(begin, end - begin);
  }
  return {};
}

/// The metadata of README.md and .huggingface.yaml together; an object.
Result<Json> read_card(const DatasetQuestion& question) {
  Json card = Json::object();
  const auto add = [&](std::string_view text, const char* name) -> Result<> {
    LORRY_ASSIGN(const Json yaml, parse_yaml(text, fmt::format("{}: {}", question.what, name)));
    if (yaml.is_null()) return {};
    if (!yaml.is_object()) {
      return invalid_input(
          fmt::format("{}: the metadata of {} is not a list of `key: value`", question.what, name));
    }
    for (const auto& [key, value] : yaml.items()) card[key] = value;
    return {};
  };
  LORRY_TRY(add(front_matter(question.readme), "README.md"));
  LORRY_TRY(add(question.yaml, ".huggingface.yaml"));
  return card;
}

/// What an entry of `configs` may say that needs no obeying here: names, what the rows are about,
/// how fast to read, and how pandas is to type CSV (its fields stay as they are spelled).
bool is_understood(const std::string& key) {
  static const std::set<std::string> kKeys = {
      "config_name", "data_files",  "data_dir",      "default",     "description",
      "version",     "features",    "columns",       "dtype",       "keep_default_na",
      "na_filter",   "low_memory",  "memory_map",    "engine",      "batch_size",
      "chunksize",   "drop_labels", "drop_metadata", "converters",  "float_precision",
      "verbose",     "date_format", "parse_dates",   "true_values", "false_values"};
  return kKeys.contains(key);
}

/// Whether a parameter asks for what is done anyhow.
bool is_default(const std::string& key, const Json& value, const std::string& extension) {
  if (!value.is_string()) return value.is_null();
  const auto& text = value.get_ref<const std::string&>();
  if (key == "encoding") return text == "utf-8" || text == "utf8" || text == "UTF-8";
  if (key == "sep" || key == "delimiter") return text == (extension == ".tsv" ? "\t" : ",");
  return false;
}

/// The parameters of a config that its loader would obey and that are not obeyed here. `extension`
/// is that of its files.
std::string unknown_parameters(const Json& entry, const std::string& extension) {
  std::string names;
  for (const auto& [key, value] : entry.items()) {
    if (is_understood(key) || is_default(key, value, extension)) continue;
    names += (names.empty() ? "" : ", ") + key;
  }
  return names;
}

struct Config {
  std::string name;
  Json entry;  ///< of `configs`, with its parameters
  std::string data_dir;
  std::optional<Splits> patterns;  ///< nullopt: by the names in data_dir
  bool marked_default = false;
};

std::string text_of(const Json& value) {
  return value.is_string() ? value.get<std::string>() : dump_json(value);
}

Result<Config> read_config(const Json& entry, const std::string& what) {
  if (!entry.is_object() || !entry.contains("config_name")) {
    return invalid_input(
        fmt::format("{}: an entry of `configs` in README.md has no config_name: {}", what,
                    dump_json(entry).substr(0, 100)));
  }
  Config config;
  config.name = text_of(entry["config_name"]);
  config.entry = entry;
  if (entry.contains("data_dir") && entry["data_dir"].is_string()) {
    config.data_dir = entry["data_dir"].get<std::string>();
  }
  if (entry.contains("data_files") && !entry["data_files"].is_null()) {
    LORRY_ASSIGN(config.patterns,
                 patterns_of(entry["data_files"], fmt::format("{}: config {}", what, config.name)));
  }
  const Json marked = entry.value("default", Json());
  config.marked_default = marked.is_boolean() ? marked.get<bool>() : !marked.is_null();
  return config;
}

Result<std::vector<Config>> read_configs(const Json& card, const std::string& what) {
  std::vector<Config> configs;
  const Json list = card.value("configs", Json());
  if (list.is_null() || list.empty()) return configs;
  if (!list.is_array()) {
    return invalid_input(fmt::format("{}: `configs` in README.md is not a list", what));
  }
  for (const auto& entry : list) {
    LORRY_ASSIGN(auto config, read_config(entry, what));
    const auto same = [&](const Config& other) { return other.name == config.name; };
    const auto earlier = std::find_if(configs.begin(), configs.end(), same);
    if (earlier == configs.end()) {
      configs.push_back(std::move(config));
    } else {
      *earlier = std::move(config);
    }
  }
  return configs;
}

template <typename List>
std::string names_of(const List& list, std::string (*name)(const typename List::value_type&)) {
  std::vector<std::string> names;
  for (const auto& one : list) names.push_back(name(one));
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string config_names(const std::vector<Config>& configs) {
  return names_of(
      configs, +[](const Config& config) { return config.name; });
}

std::string split_names(const Splits& splits) {
  return names_of(
      splits, +[](const Splits::value_type& split) { return split.first; });
}

/// The name of the only entry under `dataset_info`, which counts as the default config.
std::string only_info_name(const Json& card) {
  Json info = card.value("dataset_info", Json());
  if (info.is_array()) info = info.size() == 1 ? Json(info[0]) : Json();
  if (!info.is_object()) return "";
  return text_of(info.value("config_name", Json("default")));
}

Result<Config> choose_config(const std::vector<Config>& configs, const Json& card,
                             const DatasetQuestion& question) {
  const auto named = [&](const std::string& name) {
    return std::find_if(configs.begin(), configs.end(),
                        [&](const Config& config) { return config.name == name; });
  };
  if (!question.config.empty()) {
    const auto found = named(question.config);
    if (found != configs.end()) return *found;
    return usage_error(fmt::format("{} has no config '{}'; --config takes one of: {}",
                                   question.what, question.config, config_names(configs)));
  }
  std::vector<Config> defaults;
  for (const auto& config : configs) {
    if (configs.size() == 1 || config.name == "default" || config.marked_default) {
      defaults.push_back(config);
    }
  }
  if (defaults.size() == 1) return defaults[0];
  if (defaults.size() > 1) {
    return usage_error(fmt::format("{} has several default configs; choose with --config: {}",
                                   question.what, config_names(defaults)));
  }
  const auto by_info = named(only_info_name(card));
  if (by_info != configs.end()) return *by_info;
  return usage_error(fmt::format("{} has several configs; choose with --config: {}", question.what,
                                 config_names(configs)));
}

/// `datasets` ran these once; it no longer does, and lorry never will.
bool has_script(const DatasetQuestion& question) {
  const std::string name = question.what.substr(question.what.rfind('/') + 1) + ".py";
  return std::find(question.paths.begin(), question.paths.end(), name) != question.paths.end();
}

Error no_data(const DatasetQuestion& question, const std::string& why) {
  if (has_script(question)) {
    return unsupported(fmt::format(
        "{} is a loading script, which is not run; if the Hub has converted it, its rows are at "
        "--revision refs/convert/parquet",
        question.what));
  }
  return not_found(
      fmt::format("{}: {} (.parquet, .jsonl, .json, .csv, .tsv or .arrow)", question.what, why));
}

/// Texts about the data (.md, .toml), which `datasets` takes for data where they are the majority.
InferredModule infer_without_documents(std::vector<std::string> files) {
  const auto all = infer_module(files);
  std::erase_if(files, [](const std::string& file) { return belongs_to_module(file, "harbor"); });
  auto inferred = infer_module(files);
  return inferred.module.empty() ? all : inferred;
}

Result<InferredModule> module_of(const Splits& splits, const DatasetQuestion& question) {
  std::optional<InferredModule> module;
  for (const auto& [split, files] : splits) {
    auto inferred = infer_module(files);
    if (inferred.module == "harbor") inferred = infer_without_documents(files);
    // .tsv is its own format here; JSON's three extensions are one.
    const auto kind = [](const InferredModule& it) {
      return it.module == "csv" ? it.extension : it.module;
    };
    if (module && kind(*module) != kind(inferred)) {
      return invalid_input(
          fmt::format("{}: the splits are of different formats ({} and {}); name the files instead",
                      question.what, module->extension, inferred.extension));
    }
    module = std::move(inferred);
  }
  if (!module || module->module.empty()) return no_data(question, "no data files");
  return *module;
}

Result<> check_module(const InferredModule& module, const DatasetQuestion& question) {
  static const std::vector<std::string> kRead = {"json", "csv", "parquet", "arrow", "zip"};
  if (std::count(kRead.begin(), kRead.end(), module.module) > 0) return {};
  if (has_script(question)) return no_data(question, "");
  return unsupported(
      fmt::format("{} holds {} files ({}); lorry imports Parquet, JSON, CSV and Arrow. If the Hub "
                  "has converted "
                  "it, take --revision refs/convert/parquet",
                  question.what, module.extension, module.module));
}

Result<> check_parameters(const Config& config, const InferredModule& module,
                          const DatasetQuestion& question) {
  const auto names = unknown_parameters(config.entry, module.extension);
  if (names.empty()) return {};
  return unsupported(fmt::format(
      "{}: README.md says how config {} is to be read, which lorry does not follow: {}; name the "
      "files themselves if they can be read without, else convert them to JSON or Parquet",
      question.what, config.name, names));
}

Result<Splits::value_type> choose_split(const Splits& splits, const std::string& config,
                                        const DatasetQuestion& question) {
  const std::string wanted = question.split.empty() ? "train" : question.split;
  for (const auto& split : splits) {
    if (split.first == wanted) return split;
  }
  if (question.split.empty() && splits.size() == 1) return splits[0];
  const std::string of = fmt::format("{} (config {})", question.what, config);
  if (question.split.empty()) {
    return usage_error(
        fmt::format("{} has no split train; choose with --split: {}", of, split_names(splits)));
  }
  return usage_error(fmt::format("{} has no split '{}'; --split takes one of: {}", of,
                                 question.split, split_names(splits)));
}

/// What of the split is in the format that was inferred.
void keep_module(std::vector<std::string> files, const InferredModule& module, DatasetFiles& kept) {
  size_t left_out = 0;
  for (auto& file : files) {
    // Comma and tab are not told apart by the file: the commoner extension decides.
    const auto extensions = extensions_of(file);
    const bool other_csv =
        module.module == "csv" &&
        std::find(extensions.begin(), extensions.end(), module.extension) == extensions.end();
    if (belongs_to_module(file, module.module) && !other_csv) {
      kept.paths.push_back(std::move(file));
    } else if (++left_out <= kMaxNotes) {
      kept.notes.push_back(fmt::format("{}: left out, the data set is {}", file, module.extension));
    }
  }
  if (left_out > kMaxNotes) {
    kept.notes.push_back(fmt::format("{} more files left out", left_out - kMaxNotes));
  }
}

}  // namespace

bool has_configs(const std::string& readme, const std::string& yaml) {
  DatasetQuestion question;
  question.readme = readme;
  question.yaml = yaml;
  const auto card = read_card(question);
  return !card.ok() || !card->value("configs", Json()).empty();
}

Result<DatasetFiles> resolve_dataset(const DatasetQuestion& question) {
  LORRY_ASSIGN(const Json card, read_card(question));
  LORRY_ASSIGN(auto configs, read_configs(card, question.what));
  const auto as_no_data = [&](auto result) {
    using Kind = decltype(result);
    if (result.ok() || result.error().kind != ErrorKind::kNotFound) return result;
    return Kind(no_data(question, result.error().message));
  };
  // The format is that of the first config, or of the whole repository, as `datasets` has it.
  Splits first;
  if (!configs.empty() && configs[0].patterns) {
    first = *configs[0].patterns;
  } else {
    LORRY_ASSIGN(first, as_no_data(default_patterns("", question.paths)));
  }
  LORRY_ASSIGN(Splits splits, as_no_data(resolve_patterns(first, "", question.paths)));

  if (configs.empty()) configs.push_back(Config{"default", Json::object(), "", first, true});
  LORRY_ASSIGN(const Config config, choose_config(configs, card, question));
  const std::string base = join_folder("", config.data_dir);
  Splits patterns;
  if (config.patterns) {
    patterns = *config.patterns;
  } else {
    LORRY_ASSIGN(patterns, as_no_data(default_patterns(base, question.paths)));
  }
  LORRY_ASSIGN(Splits chosen, as_no_data(resolve_patterns(patterns, base, question.paths)));
  LORRY_ASSIGN(const auto module, module_of(splits, question));
  LORRY_TRY(check_module(module, question));
  LORRY_TRY(check_parameters(config, module, question));
  LORRY_ASSIGN(auto split, choose_split(chosen, config.name, question));

  DatasetFiles files;
  files.config = config.name;
  files.split = split.first;
  files.module = module.module;
  keep_module(std::move(split.second), module, files);
  if (files.paths.empty()) {
    return no_data(question, fmt::format("no {} files in split {} of config {}", module.extension,
                                         files.split, files.config));
  }
  return files;
}

}  // namespace lorry::hub
