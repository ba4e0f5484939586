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
constexpr const char* kHead = "base_model.model.lm_head.weight";

std::string peft_name(const Module& module, std::string_view part) {
  return fmt::format("{}{}.{}", kPrefix, module.name, part);
}

/// `prefix`: ModelSpec::module_prefix.
std::string embed_name(const std::string& prefix) {
  return fmt::format("{}{}embed_tokens.weight", kPrefix, prefix);
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

}  // namespace

/// Takes the tensors of one adapter out of its file; what is left belongs to nothing.
class AdapterReader {
 public:
  AdapterReader(const SafetensorsReader& reader, const ModelSpec& model, std::string where,
                at::Device device)
      : reader_(reader), model_(model), where_(std::move(where)), device_(device) {
    for (auto& name : reader.names()) left_.insert(std::move(name));
  }

  Result<> read(LoraAdapter& adapter) {
    adapter.linears_ = model_.linears;
    for (const LinearSpec& linear : model_.linears) {
      auto& pairs = adapter.pairs_.emplace_back(linear.modules.size());
      for (size_t m = 0; m < linear.modules.size(); ++m) {
        LORRY_ASSIGN(pairs[m], read_pair(adapter.config_, linear, linear.modules[m]));
      }
    }
    const std::vector<int64_t> table = {model_.vocab_size, model_.hidden_size};
    adapter.saved_.prefix = model_.module_prefix;
    LORRY_ASSIGN(adapter.saved_.embed, take_saved(embed_name(model_.module_prefix), table));
    LORRY_ASSIGN(adapter.saved_.head, take_saved(kHead, table));
    return check_all_taken(adapter);
  }

 private:
  Result<std::optional<LoraAdapter::Pair>> read_pair(const LoraConfig& config,
                                                     const LinearSpec& linear,
                                                     const Module& module) {
    LoraAdapter::Pair pair;
    const std::string a = peft_name(module, "lora_A.weight");
    const std::string b = peft_name(module, "lora_B.weight");
    const int64_t rank = config.rank_of(module.name);
    if (left_.contains(a) || left_.contains(b)) {
      LORRY_ASSIGN(pair.a, take(a, {rank, linear.in}));
      LORRY_ASSIGN(pair.b, take(b, {module.rows, rank}));
      pair.scale = config.scale_of(module.name);
    }
    LORRY_ASSIGN(pair.magnitude,
                 take_any(module, {"lora_magnitude_vector", "lora_magnitude_vector.weight"}));
    LORRY_ASSIGN(pair.bias, take_any(module, {"base_layer.bias", "bias"}));
    if (pair.bias.defined() && module.bias.name.empty()) {
      return invalid_input(
          fmt::format("{}: the adapter has a bias for {}, which has none in this "
                      "model; maybe another base model?",
                      where_, module.name));
    }
    if (config.use_dora && pair.a.defined() && !pair.magnitude.defined()) {
      return corrupt_data(fmt::format("{}: tensor {} is missing", where_,
                                      peft_name(module, "lora_magnitude_vector")));
    }
    const bool is_empty = !pair.a.defined() && !pair.bias.defined();
    return is_empty ? std::optional<LoraAdapter::Pair>() : std::optional(std::move(pair));
  }

  /// The first of the module's tensors by these names that is there; undefined if none is.
  Result<at::Tensor> take_any(const Module& module, std::initializer_list<const char*> parts) {
    for (const char* part : parts) {
      const std::string name = peft_name(module, part);
      if (left_.contains(name)) return take(name, {module.rows});
    }
    return at::Tensor();
  }

  Result<at::Tensor> take_saved(const std::string& name, const std::vector<int64_t>& shape) {
    if (!left_.contains(name)) return at::Tensor();
    if (reader_.shape(name) != shape) {
      return unsupported(fmt::format(
          "{}: the adapter carries {} of shape {} for a vocabulary of another size than the base "
          "model's {}; merge it with the program that resized the vocabulary",
          where_, name, shape_text(reader_.shape(name)), shape_text(shape)));
    }
    return take(name, shape);
  }

  /// In float32 on the device, its shape checked.
  Result<at::Tensor> take(const std::string& name, const std::vector<int64_t>& expected) {
    if (!reader_.contains(name)) {
      return corrupt_data(fmt::format("{}: tensor {} is missing", where_, name));
    }
    if (reader_.shape(name) != expected) {
      return invalid_input(
          fmt::format("{}: {} is {}, this model needs {}; maybe another base model?", where_, name,
                      shape_text(reader_.shape(name)), shape_text(expected)));
    }
    LORRY_ASSIGN(const at::Tensor tensor, reader_.tensor(name));
    if (!at::isFloatingType(tensor.scalar_type())) {
      return unsupported(fmt::format("{}: {} is {}; only float adapters are read", where_, name,
                                     reader_.dtype(name)));
    }
    left_.erase(name);
    try {
      return tensor.to(device_, at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    } catch (const std::exception& e) {
      return unavailable(fmt::format("{}: {}: {}", where_, name, e.what()));
    }
  }

  Result<> check_all_taken(const LoraAdapter& adapter) const {
    if (!left_.empty()) return unsupported(fmt::format("{}: {}", where_, describe(*left_.begin())));
    const bool any = adapter.saved_.embed.defined() || adapter.saved_.head.defined() ||
                     !adapter.named_parameters().empty();
    if (any) return {};
    return invalid_input(fmt::format("{}: the adapter is empty", where_));
  }

  std::string describe(const std::string& name) const {
    if (name.find("lora_embedding_") != std::string::npos ||
        name.find("embed_tokens") != std::string::npos ||
        name.find("lm_head") != std::string::npos) {
      return fmt::format(
          "tensor {}: low-rank pairs on embeddings or head are not supported; whole ones "
          "(modules_to_save) are",
          name);
    }
    if (name.find(".lora_A.") != std::string::npos && !name.ends_with(".lora_A.weight")) {
      return fmt::format(
          "tensor {}: the name still holds an adapter's name; save it with `peft`'s "
          "save_pretrained",
          name);
    }
    return fmt::format(
        "tensor {} belongs to no linear map of this model's {} layers; maybe another base model?",
        name, model_.num_hidden_layers());
  }

  const SafetensorsReader& reader_;
  const ModelSpec& model_;
  std::string where_;
  at::Device device_;
  std::set<std::string> left_;
};

Result<std::shared_ptr<LoraAdapter>> LoraAdapter::load(const store::Bucket& bucket,
                                                       const std::string& dir,
                                                       const ModelSpec& model, at::Device device) {
  const std::string where = dir.empty() ? bucket.uri() : dir;  // for errors
  const std::string path = store::join_path(dir, kConfigFile);
  LORRY_ASSIGN(const bool exists, bucket.exists(path));
  if (!exists) return not_found(fmt::format("{}: no {}; is this an adapter?", where, kConfigFile));
  LORRY_ASSIGN(const std::string text, bucket.read(path));
  const std::string config_file = where + "/" + kConfigFile;
  LORRY_ASSIGN(const Json json, parse_json(text, config_file));
  auto adapter = std::make_shared<LoraAdapter>();
  LORRY_ASSIGN(adapter->config_, parse_lora_config(json, config_file));
  LORRY_ASSIGN(const auto reader, SafetensorsReader::open(bucket, dir, kStem));
  // target_modules may be a list, a pattern or "all-linear"; the tensors say what it came to.
  LORRY_TRY(AdapterReader(*reader, model, where, device).read(*adapter));
  return adapter;
}

std::vector<std::pair<std::string, at::Tensor>> LoraAdapter::named_parameters() const {
  std::vector<std::pair<std::string, at::Tensor>> result;
  const auto add = [&](std::string name, const at::Tensor& tensor) {
    if (tensor.defined()) result.emplace_back(std::move(name), tensor);
  };
  for (size_t l = 0; l < pairs_.size(); ++l) {
    for (size_t m = 0; m < pairs_[l].size(); ++m) {
      if (!pairs_[l][m]) continue;
      const Module& module = linears_[l].modules[m];
      const Pair& pair = *pairs_[l][m];
      add(peft_name(module, "lora_A.weight"), pair.a);
      add(peft_name(module, "lora_B.weight"), pair.b);
      add(peft_name(module, "lora_magnitude_vector"), pair.magnitude);
      add(peft_name(module, pair.a.defined() ? "base_layer.bias" : "bias"), pair.bias);
    }
  }
  add(embed_name(saved_.prefix), saved_.embed);
  add(kHead, saved_.head);
  return result;
}

namespace {

/// Modules by short name where all of that name are changed, else in full.
std::set<std::string> target_names(const std::vector<LinearSpec>& linears,
                                   const LoraAdapter& adapter) {
  std::map<std::string, std::vector<std::string>> changed;
  std::map<std::string, size_t> all;
  for (size_t l = 0; l < linears.size(); ++l) {
    for (size_t m = 0; m < linears[l].modules.size(); ++m) {
      const std::string& name = linears[l].modules[m].name;
      ++all[short_name(name)];
      const auto* pair = adapter.find(static_cast<int64_t>(l), static_cast<int64_t>(m));
      if (pair && pair->a.defined()) changed[short_name(name)].push_back(name);
    }
  }
  std::set<std::string> names;
  for (const auto& [name, full] : changed) {
    if (full.size() == all[name]) {
      names.insert(name);
    } else {
      names.insert(full.begin(), full.end());
    }
  }
  return names;
}

Json number_json(double value) {
  const bool whole = value == std::floor(value) && std::abs(value) < 1e15;
  return whole ? Json(static_cast<int64_t>(value)) : Json(value);
}

}  // namespace

Json LoraAdapter::peft_config(const std::string& base_model_name) const {
  Json json = Json::object();
  json["alpha_pattern"] = Json::object();
  for (const auto& [pattern, alpha] : config_.alpha_pattern) {
    json["alpha_pattern"][pattern] = number_json(alpha);
  }
  json["auto_mapping"] = nullptr;
  json["base_model_name_or_path"] = base_model_name;
  json["bias"] = config_.bias;
  json["exclude_modules"] = nullptr;
  json["fan_in_fan_out"] = false;
  json["inference_mode"] = true;
  json["init_lora_weights"] = true;
  json["layer_replication"] = nullptr;
  json["layers_pattern"] = nullptr;
  json["layers_to_transform"] = nullptr;  // target_modules names what was chosen
  json["loftq_config"] = Json::object();
  json["lora_alpha"] = number_json(config_.alpha);
  json["lora_bias"] = false;
  json["lora_dropout"] = config_.dropout;
  json["modules_to_save"] = nullptr;
  std::vector<std::string> saved;
  if (saved_.embed.defined()) saved.emplace_back("embed_tokens");
  if (saved_.head.defined()) saved.emplace_back("lm_head");
  if (!saved.empty()) json["modules_to_save"] = saved;
  json["peft_type"] = "LORA";
  json["r"] = config_.r;
  json["rank_pattern"] = Json::object();
  for (const auto& [pattern, rank] : config_.rank_pattern) json["rank_pattern"][pattern] = rank;
  json["revision"] = nullptr;
  json["target_modules"] = target_names(linears_, *this);
  json["task_type"] = "CAUSAL_LM";
  json["use_dora"] = config_.use_dora;
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
