#include "model/lora_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>  // join

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

namespace lorry::model {
namespace {

/// Present and neither null, false, empty nor the default that changes nothing.
bool is_set(const Json& config, const char* name) {
  if (!config.contains(name)) return false;
  const Json& value = config[name];
  if (value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_structured() || value.is_string()) return !value.empty();
  return true;
}

/// Fields that this file reads, or that change nothing once an adapter is saved.
constexpr const char* kKnownFields[] = {"alpha_pattern",
                                        "auto_mapping",
                                        "base_model_name_or_path",
                                        "bias",
                                        "exclude_modules",
                                        "inference_mode",
                                        "init_lora_weights",
                                        "layers_pattern",
                                        "layers_to_transform",
                                        "loftq_config",
                                        "eva_config",
                                        "corda_config",
                                        "lora_ga_config",
                                        "lora_alpha",
                                        "lora_dropout",
                                        "megatron_core",
                                        "modules_to_save",
                                        "peft_type",
                                        "peft_version",
                                        "qalora_group_size",
                                        "r",
                                        "rank_pattern",
                                        "revision",
                                        "runtime_config",
                                        "target_modules",
                                        "task_type",
                                        "use_dora",
                                        "use_rslora",
                                        "ensure_weight_tying",
                                        "auto_map",
                                        "library_name",
                                        "unsloth_version",
                                        "unsloth_fixed"};

bool is_known(const std::string& field) {
  return std::any_of(std::begin(kKnownFields), std::end(kKnownFields),
                     [&](const char* known) { return field == known; });
}

/// What would make the adapter compute something that lorry does not.
Result<> refuse_unsupported(const Json& config, const std::string& where) {
  const auto refuse = [&](std::string_view what) {
    return unsupported(fmt::format("{}: {} is not supported", where, what));
  };
  const std::string type =
      config.contains("peft_type") && config["peft_type"].is_string() ? config["peft_type"] : "";
  if (type != "LORA") return refuse(fmt::format("peft_type \"{}\"", type));
  for (const auto& [field, value] : config.items()) {
    if (!is_known(field) && is_set(config, field.c_str())) return refuse(field);
  }
  // These starts change the base weights too, so that the saved pair alone is not the adapter.
  if (config.contains("init_lora_weights") && config["init_lora_weights"].is_string()) {
    const std::string init = config["init_lora_weights"];
    if (init != "gaussian" && init != "eva" && init != "orthogonal") {
      return refuse(fmt::format("init_lora_weights \"{}\"", init));
    }
  }
  return {};
}

/// The fields of one object, typed; the first wrong one is the error.
class Fields {
 public:
  Fields(const Json& json, const std::string& where) : json_(json), where_(where) {}

  double number(const char* name, double fallback) {
    if (!json_.contains(name) || json_[name].is_null()) return fallback;
    if (!json_[name].is_number()) return wrong(name, "a number"), fallback;
    return json_[name].get<double>();
  }
  std::vector<std::string> names(const char* name, bool& is_pattern) {
    is_pattern = false;
    if (!is_set(json_, name)) return {};
    const Json& value = json_[name];
    if (value.is_string()) {
      is_pattern = value != "all-linear";
      return {value.get<std::string>()};
    }
    std::vector<std::string> list;
    for (const Json& item : value) {
      if (!item.is_string()) return wrong(name, "names"), std::vector<std::string>();
      list.push_back(item.get<std::string>());
    }
    return list;
  }
  std::vector<int64_t> indices(const char* name) {
    if (!json_.contains(name) || json_[name].is_null()) return {};
    const Json& value = json_[name];
    if (value.is_number_integer()) return {value.get<int64_t>()};
    const bool good = value.is_array() && std::all_of(value.begin(), value.end(), [](auto& x) {
                        return x.is_number_integer();
                      });
    if (!good) return wrong(name, "layer numbers"), std::vector<int64_t>();
    return value.get<std::vector<int64_t>>();
  }
  template <typename T>
  std::vector<std::pair<std::string, T>> patterns(const char* name) {
    std::vector<std::pair<std::string, T>> list;
    if (!is_set(json_, name)) return list;
    if (!json_[name].is_object()) return wrong(name, "an object"), list;
    for (const auto& [pattern, value] : json_[name].items()) {
      if (!value.is_number()) return wrong(name, "numbers by pattern"), list;
      list.emplace_back(pattern, value.template get<T>());
    }
    return list;
  }
  void wrong(const char* name, std::string_view expected) {
    if (!error_) error_ = invalid_input(fmt::format("{}: `{}` must be {}", where_, name, expected));
  }
  Result<> status() const {
    if (error_) return *error_;
    return {};
  }

 private:
  const Json& json_;
  const std::string& where_;
  std::optional<Error> error_;
};

bool matches_whole(const std::string& pattern, const std::string& text) {
  return std::regex_match(text, std::regex(pattern));
}

/// `peft`'s rule for rank_pattern and alpha_pattern: a suffix that begins at a dot, as a pattern.
bool ends_in(const std::string& pattern, const std::string& module) {
  return matches_whole("(.*\\.)?(" + pattern + ")", module);
}

/// A name matches a module that it equals or that ends in ".name".
bool names_match(const std::vector<std::string>& names, const std::string& module) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return module == name || module.ends_with("." + name);
  });
}

bool is_all_linear(const LoraConfig& config) {
  const auto& names = config.target_modules;
  return names.empty() || (names.size() == 1 && names[0] == "all-linear");
}

bool is_excluded(const LoraConfig& config, const std::string& module) {
  const auto& names = config.exclude_modules;
  if (names.empty()) return false;
  return config.excludes_are_pattern ? matches_whole(names[0], module) : names_match(names, module);
}

bool is_selected(const LoraConfig& config, const LinearSpec& linear, const Module& module) {
  if (is_excluded(config, module.name)) return false;
  if (is_all_linear(config)) {
    if (module.expert >= 0) return false;
  } else if (config.targets_are_pattern) {
    return matches_whole(config.target_modules[0], module.name);  // layers do not count, as in peft
  } else if (!names_match(config.target_modules, module.name)) {
    return false;
  }
  const auto& layers = config.layers_to_transform;
  return layers.empty() || std::find(layers.begin(), layers.end(), linear.layer) != layers.end();
}

std::set<std::string> short_names(const ModelSpec& model) {
  std::set<std::string> names;
  for (const LinearSpec& linear : model.linears) {
    for (const Module& module : linear.modules) names.insert(short_name(module.name));
  }
  return names;
}

/// A name that matches no module of any layer is a mistake; it is named.
Result<> check_names(const ModelSpec& model, const LoraConfig& config) {
  if (is_all_linear(config) || config.targets_are_pattern) return {};
  for (const std::string& name : config.target_modules) {
    const bool found =
        std::any_of(model.linears.begin(), model.linears.end(), [&](const LinearSpec& linear) {
          return std::any_of(linear.modules.begin(), linear.modules.end(),
                             [&](const Module& m) { return names_match({name}, m.name); });
        });
    if (found) continue;
    return usage_error(fmt::format("--target-modules: no module '{}'; there are {}", name,
                                   fmt::join(short_names(model), ", ")));
  }
  return {};
}

}  // namespace

std::string short_name(const std::string& module) { return module.substr(module.rfind('.') + 1); }

int64_t LoraConfig::rank_of(const std::string& module) const {
  for (const auto& [pattern, rank] : rank_pattern) {
    if (ends_in(pattern, module)) return rank;
  }
  return r;
}

double LoraConfig::scale_of(const std::string& module) const {
  double a = alpha;
  for (const auto& [pattern, value] : alpha_pattern) {
    if (!ends_in(pattern, module)) continue;
    a = value;
    break;
  }
  const auto rank = static_cast<double>(rank_of(module));
  return use_rslora ? a / std::sqrt(rank) : a / rank;
}

Result<LoraConfig> parse_lora_config(const Json& json, const std::string& where) {
  if (!json.is_object()) return invalid_input(where + ": not a JSON object");
  LORRY_TRY(refuse_unsupported(json, where));
  if (!json.contains("r") || !json["r"].is_number_integer() || json["r"].get<int64_t>() < 1) {
    return invalid_input(where + ": `r` must be a positive integer");
  }
  Fields fields(json, where);
  LoraConfig config;
  config.r = json["r"].get<int64_t>();
  if (json.contains("lora_alpha") && json["lora_alpha"].is_null()) {
    return invalid_input(where + ": `lora_alpha` is null");
  }
  config.alpha = fields.number("lora_alpha", 8);  // peft's default
  config.dropout = fields.number("lora_dropout", 0);
  config.use_rslora = is_set(json, "use_rslora");
  config.use_dora = is_set(json, "use_dora");
  if (json.contains("bias") && json["bias"].is_string()) config.bias = json["bias"];
  config.target_modules = fields.names("target_modules", config.targets_are_pattern);
  config.exclude_modules = fields.names("exclude_modules", config.excludes_are_pattern);
  config.layers_to_transform = fields.indices("layers_to_transform");
  config.rank_pattern = fields.patterns<int64_t>("rank_pattern");
  config.alpha_pattern = fields.patterns<double>("alpha_pattern");
  bool is_pattern = false;
  config.modules_to_save = fields.names("modules_to_save", is_pattern);
  LORRY_TRY(fields.status());
  if (!std::isfinite(config.alpha)) return invalid_input(where + ": `lora_alpha` is not finite");
  if (config.bias != "none" && config.bias != "all" && config.bias != "lora_only") {
    return unsupported(fmt::format("{}: bias \"{}\" is not supported", where, config.bias));
  }
  for (const auto& [pattern, rank] : config.rank_pattern) {
    if (rank < 1) return invalid_input(where + ": `rank_pattern` needs positive ranks");
  }
  for (const std::string& name : config.modules_to_save) {
    if (short_name(name) == "embed_tokens" || short_name(name) == "lm_head") continue;
    return unsupported(fmt::format(
        "{}: modules_to_save {} is not supported; embed_tokens and lm_head are", where, name));
  }
  return config;
}

Result<std::vector<ModuleIndex>> select_modules(const ModelSpec& model, const LoraConfig& config) {
  LORRY_TRY(check_names(model, config));
  std::vector<ModuleIndex> selected;
  try {
    for (size_t i = 0; i < model.linears.size(); ++i) {
      for (size_t j = 0; j < model.linears[i].modules.size(); ++j) {
        if (is_selected(config, model.linears[i], model.linears[i].modules[j])) {
          selected.push_back({static_cast<int64_t>(i), static_cast<int64_t>(j)});
        }
      }
    }
    if (!selected.empty()) config.rank_of(model.linears[0].modules[0].name);  // its patterns hold
  } catch (const std::regex_error& e) {
    return usage_error(fmt::format("target modules: {} is not a regular expression: {}",
                                   fmt::join(config.target_modules, " "), e.what()));
  }
  if (selected.empty() && config.modules_to_save.empty()) {
    return usage_error(fmt::format("target modules: {} matches nothing; there are {}",
                                   fmt::join(config.target_modules, " "),
                                   fmt::join(short_names(model), ", ")));
  }
  return selected;
}

}  // namespace lorry::model
