// Adapters as `peft` stores them: adapter_config.json and adapter_model.safetensors.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>  // join

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "model/lora.h"
#include "model/safetensors.h"

namespace lorry::model {
namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kStem = "adapter_model";

bool is_attention(Projection projection) {
  return projection == Projection::kQ || projection == Projection::kK ||
         projection == Projection::kV || projection == Projection::kO;
}

/// "model.layers.3.self_attn.q_proj"
std::string module_name(int64_t layer, Projection projection) {
  return fmt::format("model.layers.{}.{}.{}", layer, is_attention(projection) ? "self_attn" : "mlp",
                     projection_name(projection));
}

/// `part` is 'A' or 'B'.
std::string tensor_name(int64_t layer, Projection projection, char part) {
  return fmt::format("{}{}.lora_{}.weight", kPrefix, module_name(layer, projection), part);
}

/// Present and neither null, false, empty nor the default that changes nothing.
bool is_set(const Json& config, const char* name) {
  if (!config.contains(name)) return false;
  const Json& value = config[name];
  if (value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_structured() || value.is_string()) return !value.empty();
  return true;
}

/// What would make the adapter compute something else than alpha/r * B A beside a linear map.
Result<> refuse_unsupported(const Json& config, const std::string& where) {
  const auto refuse = [&](std::string_view what) {
    return unsupported(
        fmt::format("{}: {} is not supported; lorry reads plain LoRA adapters", where, what));
  };
  const std::string type =
      config.contains("peft_type") && config["peft_type"].is_string() ? config["peft_type"] : "";
  if (type != "LORA") return refuse(fmt::format("peft_type \"{}\"", type));
  for (const char* name :
       {"use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "rank_pattern",
        "alpha_pattern", "modules_to_save", "trainable_token_indices", "target_parameters",
        "layer_replication", "alora_invocation_tokens", "arrow_config", "kasa_config",
        "monteclora_config", "velora_config", "megatron_config"}) {
    if (is_set(config, name)) return refuse(name);
  }
  if (config.contains("bias") && config["bias"] != "none") {
    return refuse(fmt::format("bias {}", dump_json(config["bias"])));
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

Result<LoraConfig> parse_config(const Json& json, const std::string& where) {
  if (!json.is_object()) return invalid_input(where + ": not a JSON object");
  LORRY_TRY(refuse_unsupported(json, where));
  LoraConfig config;
  config.targets.clear();
  if (!json.contains("r") || !json["r"].is_number_integer() || json["r"].get<int64_t>() < 1) {
    return invalid_input(where + ": `r` must be a positive integer");
  }
  config.r = json["r"].get<int64_t>();
  const auto number = [&](const char* name, double fallback) {
    return json.contains(name) && json[name].is_number() ? json[name].get<double>() : fallback;
  };
  config.alpha = number("lora_alpha", 8);  // peft's default
  config.dropout = number("lora_dropout", 0);
  config.use_rslora = is_set(json, "use_rslora");
  if (!std::isfinite(config.alpha)) return invalid_input(where + ": `lora_alpha` is not finite");
  return config;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

/// One of the two matrices in float32 on `device`, its shape checked.
Result<at::Tensor> read_matrix(const SafetensorsReader& reader, const std::string& name,
                               const std::vector<int64_t>& expected, const std::string& where,
                               at::Device device) {
  if (!reader.contains(name)) {
    return corrupt_data(fmt::format("{}: tensor {} is missing", where, name));
  }
  if (reader.shape(name) != expected) {
    return invalid_input(fmt::format("{}: {} is {}, this model needs {}; maybe another base model?",
                                     where, name, shape_text(reader.shape(name)),
                                     shape_text(expected)));
  }
  LORRY_ASSIGN(at::Tensor tensor, reader.tensor(name));
  if (!at::isFloatingType(tensor.scalar_type())) {
    return unsupported(
        fmt::format("{}: {} is {}; only float adapters are read", where, name, reader.dtype(name)));
  }
  try {
    return tensor.to(device, at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  } catch (const std::exception& e) {
    return unavailable(fmt::format("{}: {}: {}", where, name, e.what()));
  }
}

}  // namespace

Result<std::shared_ptr<LoraAdapter>> LoraAdapter::load(const store::Bucket& bucket,
                                                       const std::string& dir,
                                                       const ModelConfig& model,
                                                       at::Device device) {
  const std::string where = dir.empty() ? bucket.uri() : dir;  // for errors
  const std::string path = store::join_path(dir, kConfigFile);
  LORRY_ASSIGN(const bool exists, bucket.exists(path));
  if (!exists) return not_found(fmt::format("{}: no {}; is this an adapter?", where, kConfigFile));
  LORRY_ASSIGN(const std::string text, bucket.read(path));
  const std::string config_file = where + "/" + kConfigFile;
  LORRY_ASSIGN(const Json json, parse_json(text, config_file));
  auto adapter = std::make_shared<LoraAdapter>();
  LORRY_ASSIGN(adapter->config_, parse_config(json, config_file));
  LORRY_ASSIGN(const auto reader, SafetensorsReader::open(bucket, dir, kStem));

  // target_modules may be a list, a pattern or "all-linear"; the tensors say what it came to.
  std::set<std::string> left;
  for (auto& name : reader->names()) left.insert(std::move(name));
  std::set<Projection> targets;
  adapter->layers_.resize(model.num_hidden_layers);
  for (int64_t layer = 0; layer < model.num_hidden_layers; ++layer) {
    for (const Projection projection : kProjections) {
      const std::string a = tensor_name(layer, projection, 'A');
      const std::string b = tensor_name(layer, projection, 'B');
      if (!left.contains(a) && !left.contains(b)) continue;
      const auto [in, out] = projection_shape(model, projection);
      const int64_t r = adapter->config_.r;
      Pair pair;
      LORRY_ASSIGN(pair.a, read_matrix(*reader, a, {r, in}, where, device));
      LORRY_ASSIGN(pair.b, read_matrix(*reader, b, {out, r}, where, device));
      adapter->layers_[layer][static_cast<size_t>(projection)] = std::move(pair);
      targets.insert(projection);
      left.erase(a);
      left.erase(b);
    }
  }
  if (!left.empty()) {
    return unsupported(
        fmt::format("{}: tensor {} belongs to no attention or MLP projection of this model's {} "
                    "layers; maybe another base model?",
                    where, *left.begin(), model.num_hidden_layers));
  }
  if (targets.empty()) return invalid_input(fmt::format("{}: the adapter is empty", where));
  adapter->config_.targets.assign(targets.begin(), targets.end());
  return adapter;
}

std::vector<std::pair<std::string, at::Tensor>> LoraAdapter::named_parameters() const {
  std::vector<std::pair<std::string, at::Tensor>> result;
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    for (const Projection projection : kProjections) {
      const Pair* pair = find(static_cast<int64_t>(layer), projection);
      if (pair == nullptr) continue;
      result.emplace_back(tensor_name(static_cast<int64_t>(layer), projection, 'A'), pair->a);
      result.emplace_back(tensor_name(static_cast<int64_t>(layer), projection, 'B'), pair->b);
    }
  }
  return result;
}

Json LoraAdapter::peft_config(const std::string& base_model_name) const {
  // Modules by short name where every layer has them, else in full.
  std::set<std::string> modules;
  for (const Projection projection : config_.targets) {
    std::vector<std::string> full;
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
      const auto index = static_cast<int64_t>(layer);
      if (find(index, projection) != nullptr) full.push_back(module_name(index, projection));
    }
    if (full.size() == layers_.size()) {
      modules.emplace(projection_name(projection));
    } else {
      modules.insert(full.begin(), full.end());
    }
  }
  Json json = Json::object();
  json["alpha_pattern"] = Json::object();
  json["auto_mapping"] = nullptr;
  json["base_model_name_or_path"] = base_model_name;
  json["bias"] = "none";
  json["exclude_modules"] = nullptr;
  json["fan_in_fan_out"] = false;
  json["inference_mode"] = true;
  json["init_lora_weights"] = true;
  json["layer_replication"] = nullptr;
  json["layers_pattern"] = nullptr;
  json["layers_to_transform"] = nullptr;
  json["loftq_config"] = Json::object();
  const bool whole = config_.alpha == std::floor(config_.alpha) && std::abs(config_.alpha) < 1e15;
  if (whole) {
    json["lora_alpha"] = static_cast<int64_t>(config_.alpha);
  } else {
    json["lora_alpha"] = config_.alpha;
  }
  json["lora_bias"] = false;
  json["lora_dropout"] = config_.dropout;
  json["modules_to_save"] = nullptr;
  json["peft_type"] = "LORA";
  json["r"] = config_.r;
  json["rank_pattern"] = Json::object();
  json["revision"] = nullptr;
  json["target_modules"] = modules;
  json["task_type"] = "CAUSAL_LM";
  json["use_dora"] = false;
  json["use_rslora"] = config_.use_rslora;
  return json;
}

Result<> LoraAdapter::save(const store::Bucket& bucket, const std::string& dir,
                           const std::string& base_model_name) const {
  LORRY_TRY(write_safetensors(bucket, store::join_path(dir, std::string(kStem) + ".safetensors"),
                              named_parameters()));
  return bucket.write(store::join_path(dir, kConfigFile),
                      dump_json(peft_config(base_model_name), 2) + "\n");
}

}  // namespace lorry::model
