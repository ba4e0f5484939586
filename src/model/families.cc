#include "model/families.h"

#include <fmt/format.h>
#include <fmt/ranges.h>  // join

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "model/families/readers.h"

namespace lorry::model {
namespace {

/// The list. Order is that of error messages.
constexpr Family kFamilies[] = {
    {"Qwen2ForCausalLM", "qwen2", read_qwen2},
    {"LlamaForCausalLM", "llama", read_llama},
    {"Qwen3ForCausalLM", "qwen3", read_qwen3},
    {"MistralForCausalLM", "mistral", read_mistral},
    {"MinistralForCausalLM", "ministral", read_ministral},
    {"Ministral3ForCausalLM", "ministral3", read_ministral3},
    {"Gemma2ForCausalLM", "gemma2", read_gemma2},
    {"Gemma3ForCausalLM", "gemma3_text", read_gemma3},
    {"Phi3ForCausalLM", "phi3", read_phi3},
    {"Olmo2ForCausalLM", "olmo2", read_olmo2},
    {"Olmo3ForCausalLM", "olmo3", read_olmo3},
    {"SmolLM3ForCausalLM", "smollm3", read_smollm3},
    {"GraniteForCausalLM", "granite", read_granite},
    {"GraniteMoeHybridForCausalLM", "granitemoehybrid", read_granite_hybrid},
    {"Qwen2MoeForCausalLM", "qwen2_moe", read_qwen2_moe},
    {"Qwen3MoeForCausalLM", "qwen3_moe", read_qwen3_moe},
    {"MixtralForCausalLM", "mixtral", read_mixtral},
    {"GptOssForCausalLM", "gpt_oss", read_gpt_oss},
    {"DeepseekV2ForCausalLM", "deepseek_v2", read_deepseek_v2},
    {"DeepseekV3ForCausalLM", "deepseek_v3", read_deepseek_v3},
    // The text part of multimodal models.
    {"Gemma3ForConditionalGeneration", "gemma3", read_gemma3, true},
    {"Mistral3ForConditionalGeneration", "mistral3", read_mistral3, true},
};

/// The name in `architectures`; "" where there is none.
Result<std::string> architecture_of(ConfigReader& config) {
  if (!config.has("architectures")) return std::string();
  const Json& list = config["architectures"];
  if (!list.is_array() || (!list.empty() && !list[0].is_string())) {
    config.wrong("architectures", "a list of names");
    return config.status().error();
  }
  return list.empty() ? std::string() : list[0].get<std::string>();
}

Result<const Family*> find_family(ConfigReader& config) {
  LORRY_ASSIGN(const std::string name, architecture_of(config));
  const std::string model_type = config.text("model_type", "");
  LORRY_TRY(config.status());
  if (name.empty() && model_type.empty()) {
    return invalid_input(
        "config.json: neither `architectures` nor `model_type` is there; is this a model?");
  }
  for (const Family& family : kFamilies) {
    const bool by_name = !name.empty();
    if (by_name ? family.architecture != name : family.model_type != model_type) continue;
    if (!model_type.empty() && family.model_type != model_type) continue;
    return &family;
  }
  const std::string shown =
      name.empty() ? "model_type " + model_type
                   : name + (model_type.empty() ? "" : fmt::format(" (model_type {})", model_type));
  return unsupported(fmt::format("architecture {} is not supported; supported are {}", shown,
                                 fmt::join(supported_architectures(), ", ")));
}

/// Whether the weights are quantised in a way that packed_weights.h reads.
bool is_read(const std::string& method, const Json& quantization) {
  const auto is = [&](const char* key, const Json& wanted, bool by_default) {
    const auto it = quantization.find(key);
    return it == quantization.end() || it->is_null() ? by_default : *it == wanted;
  };
  if (method == "gptq") {
    return is("bits", 4, false) && is("desc_act", false, true) &&
           is("checkpoint_format", "gptq", true);
  }
  if (method == "awq") {
    return is("bits", 4, false) && (is("version", "gemm", true) || is("version", "GEMM", true));
  }
  const bool is_format = is("format", "pack-quantized", false) ||
                         is("format", "int-quantized", false) ||
                         is("format", "float-quantized", false);
  return method == "compressed-tensors" && is_format;
}

/// Quantised checkpoints: GPT-OSS's own format and some of other programs are read, all others are
/// refused by name.
Result<> refuse_quantised(const ConfigReader& config, const Family& family) {
  if (!config.has("quantization_config")) return {};
  const Json& quantization = config["quantization_config"];
  std::string method = "an unnamed method";
  if (quantization.is_object() && quantization.contains("quant_method") &&
      quantization["quant_method"].is_string()) {
    method = quantization["quant_method"].get<std::string>();
    if (method == "mxfp4" && family.model_type == "gpt_oss") return {};
    if (is_read(method, quantization)) return {};
  }
  return unsupported(fmt::format(
      "config.json: the weights are quantised by {} in a way that lorry does not read; take the "
      "unquantised model, or one of GPTQ (4 bits, no desc_act), AWQ (gemm) or compressed-tensors "
      "(pack-, int- or float-quantized)",
      method));
}

/// The text part of a multimodal configuration, with what stands beside it.
Json text_part(const Json& config) {
  Json text = config["text_config"];
  for (const char* name : {"tie_word_embeddings", "dtype", "torch_dtype", "eos_token_id"}) {
    if (!text.contains(name) && config.contains(name)) text[name] = config[name];
  }
  return text;
}

/// Modules go by the names that they have inside the multimodal class, which adapters are saved by.
void name_as_text_part(ModelSpec& spec) {
  const std::string before = std::exchange(spec.module_prefix, "model.language_model.");
  for (LinearSpec& linear : spec.linears) {
    for (Module& module : linear.modules) {
      module.name = spec.module_prefix + module.name.substr(before.size());
    }
  }
}

/// The context that rope scaling gives: YaRN's original length times its factor, as in vLLM, which
/// the cards of models tell their users to ask for by adding `rope_scaling` alone. A linear scaling
/// is in `max_position_embeddings` already in some checkpoints and not in others, so it only raises
/// what may be asked for, and only where all positions are scaled.
void set_context(ModelSpec& spec) {
  const auto times = [](int64_t length, double factor) {
    return static_cast<int64_t>(static_cast<double>(length) * std::max(factor, 1.0));
  };
  bool linear = !spec.ropes.empty();
  double factor = 1;
  for (const RopeSpec& rope : spec.ropes) {
    linear = linear && rope.type == RopeSpec::Type::kLinear;
    factor = rope.factor;
    if (rope.type != RopeSpec::Type::kYarn) continue;
    spec.max_position_embeddings = std::max(
        spec.max_position_embeddings, times(rope.original_max_position_embeddings, rope.factor));
  }
  spec.longest_context =
      linear ? times(spec.max_position_embeddings, factor) : spec.max_position_embeddings;
}

}  // namespace

Result<ModelSpec> parse_model_spec(const Json& json, const Json& generation_config) {
  if (!json.is_object()) return invalid_input("config.json: not a JSON object");
  ConfigReader config(json);
  LORRY_ASSIGN(const Family* family, find_family(config));
  LORRY_TRY(refuse_quantised(config, *family));
  const bool wrapped = family->wraps_text && config.has("text_config");
  if (wrapped && !config["text_config"].is_object()) {
    return invalid_input("config.json: `text_config` must be an object");
  }
  const Json text = wrapped ? text_part(json) : Json();
  ConfigReader reader(wrapped ? text : json);
  LORRY_ASSIGN(ModelSpec spec, family->read(reader));
  spec.architecture = family->architecture;
  spec.model_type = family->model_type;
  if (wrapped) name_as_text_part(spec);
  set_context(spec);
  LORRY_TRY(add_eos(generation_config, "generation_config.json", spec.eos_token_ids));
  return spec;
}

std::vector<std::string> supported_architectures() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) names.emplace_back(family.architecture);
  return names;
}

}  // namespace lorry::model
