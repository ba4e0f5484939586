#include "model/config_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace lorry::model {
namespace {

constexpr int64_t kMostLayers = 10'000;

}  // namespace

bool ConfigReader::has(const char* name) const {
  return object_.is_object() && object_.contains(name) && !object_[name].is_null();
}

bool ConfigReader::is_null(const char* name) const {
  return object_.is_object() && object_.contains(name) && object_[name].is_null();
}

int64_t ConfigReader::integer(const char* name, int64_t fallback) {
  if (!has(name)) return fallback;
  if (!object_[name].is_number_integer()) return wrong(name, "an integer"), fallback;
  return object_[name].get<int64_t>();
}

int64_t ConfigReader::size(const char* name) {
  if (!has(name)) return missing(name), 1;
  return positive(name, 1);
}

int64_t ConfigReader::positive(const char* name, int64_t fallback) {
  const int64_t value = integer(name, fallback);
  if (value < 1 || value > int64_t{1} << 31) return wrong(name, "a positive integer"), 1;
  return value;
}

int64_t ConfigReader::count(const char* name, std::optional<int64_t> fallback) {
  const int64_t value = fallback ? positive(name, *fallback) : size(name);
  if (value > kMostLayers) return wrong(name, fmt::format("at most {}", kMostLayers)), 1;
  return value;
}

double ConfigReader::number(const char* name, double fallback) {
  if (!has(name)) return fallback;
  if (!object_[name].is_number()) return wrong(name, "a number"), fallback;
  return object_[name].get<double>();
}

std::optional<double> ConfigReader::maybe_number(const char* name) {
  if (!has(name)) return std::nullopt;
  return number(name, 0);
}

bool ConfigReader::boolean(const char* name, bool fallback) {
  if (!has(name)) return fallback;
  if (!object_[name].is_boolean()) return wrong(name, "true or false"), fallback;
  return object_[name].get<bool>();
}

std::string ConfigReader::text(const char* name, std::string fallback) {
  if (!has(name)) return fallback;
  if (!object_[name].is_string()) return wrong(name, "a string"), fallback;
  return object_[name].get<std::string>();
}

std::vector<double> ConfigReader::numbers(const char* name) {
  std::vector<double> values;
  if (!has(name)) return values;
  const Json& list = object_[name];
  const bool good = list.is_array() && std::all_of(list.begin(), list.end(),
                                                   [](const Json& x) { return x.is_number(); });
  if (!good) return wrong(name, "a list of numbers"), values;
  return list.get<std::vector<double>>();
}

std::vector<int64_t> ConfigReader::per_layer(const char* name, int64_t layers) {
  std::vector<int64_t> values;
  if (!has(name)) return values;
  const Json& list = object_[name];
  if (!list.is_array() || static_cast<int64_t>(list.size()) != layers) {
    return wrong(name, "a list with one value a layer"), values;
  }
  for (const Json& value : list) {
    if (!value.is_boolean() && !value.is_number_integer()) {
      return wrong(name, "a list of whole numbers"), std::vector<int64_t>();
    }
    values.push_back(value.is_boolean() ? value.get<bool>() : value.get<int64_t>());
  }
  return values;
}

std::vector<std::string> ConfigReader::layer_types(int64_t layers,
                                                   const std::vector<std::string_view>& known) {
  std::vector<std::string> names;
  if (!has("layer_types")) return names;
  const Json& types = object_["layer_types"];
  if (!types.is_array() || static_cast<int64_t>(types.size()) != layers) {
    fail(invalid_input(what_ + ": `layer_types` must name num_hidden_layers layers"));
    return names;
  }
  for (int64_t i = 0; i < layers; ++i) {
    const std::string type = types[i].is_string() ? types[i].get<std::string>() : "";
    if (std::find(known.begin(), known.end(), type) == known.end()) {
      fail(unsupported(fmt::format("{}: layer type {} of layer {} is not supported", what_,
                                   dump_json(types[i]), i)));
      return {};
    }
    names.push_back(type);
  }
  return names;
}

void ConfigReader::missing(const char* name) {
  fail(invalid_input(fmt::format("{}: `{}` is missing", what_, name)));
}

void ConfigReader::wrong(const char* name, std::string_view expected) {
  const std::string value = object_.contains(name) ? dump_json(object_[name]) : "missing";
  fail(invalid_input(
      fmt::format("{}: `{}` must be {}, is {}", what_, name, expected, value.substr(0, 60))));
}

void ConfigReader::fail(Error error) {
  if (!error_) error_ = std::move(error);
}

void ConfigReader::require(const char* name, const Json& value) {
  if (!has(name) || object_[name] == value) return;
  fail(unsupported(fmt::format("{}: {} {} is not supported; only {} is", what_, name,
                               dump_json(object_[name]).substr(0, 60), dump_json(value))));
}

Result<> ConfigReader::status() const {
  if (error_) return *error_;
  return {};
}

ops::Activation read_activation(ConfigReader& config, const char* fallback) {
  const char* field = config.has("hidden_activation") ? "hidden_activation" : "hidden_act";
  const std::string name = config.text(field, fallback);
  using Kind = ops::Activation::Kind;
  if (name == "silu" || name == "swish") return {Kind::kSilu};
  if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") {
    return {Kind::kGeluTanh};
  }
  if (name == "gelu") return {Kind::kGelu};
  config.fail(
      unsupported(fmt::format("{}: {} {} is not supported; silu, gelu and gelu_pytorch_tanh are",
                              config.what(), field, name)));
  return {};
}

Result<> add_eos(const Json& config, const char* what, std::vector<int64_t>& ids) {
  if (!config.is_object() || !config.contains("eos_token_id")) return {};
  const Json& eos = config["eos_token_id"];
  const auto add = [&](const Json& id) {
    if (!id.is_number_integer()) return false;
    const int64_t value = id.get<int64_t>();
    if (std::find(ids.begin(), ids.end(), value) == ids.end()) ids.push_back(value);
    return true;
  };
  bool good = true;
  if (eos.is_array()) {
    for (const Json& id : eos) good = good && add(id);
  } else if (!eos.is_null()) {
    good = add(eos);
  }
  if (!good) return invalid_input(fmt::format("{}: `eos_token_id` must be ids", what));
  return {};
}

Result<std::string> read_dtype(ConfigReader& config) {
  std::string dtype = config.text("dtype", config.text("torch_dtype", ""));
  LORRY_TRY(config.status());
  if (dtype.starts_with("torch.")) dtype.erase(0, 6);
  if (dtype.empty() || dtype == "bfloat16" || dtype == "float16" || dtype == "float32") {
    return dtype;
  }
  return unsupported(fmt::format("config.json: dtype {} is not supported", dtype));
}

}  // namespace lorry::model
