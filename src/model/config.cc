#include "model/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

namespace lorry::model {
namespace {

/// Where an architecture departs from Llama; the rest of a config.json reads the same for all.
struct Architecture {
  enum class Windows { kNever, kAllLayers, kByLayer };
  std::string_view name;
  std::string_view model_type;
  bool always_qkv_bias;
  bool reads_attention_bias;
  bool reads_mlp_bias;
  bool qk_norm;
  Windows windows;
  // What `transformers` assumes where config.json is silent; 0 means "derive it".
  int64_t default_kv_heads;
  int64_t default_head_dim;
  int64_t default_positions;
};

constexpr Architecture kArchitectures[] = {
    {"Qwen2ForCausalLM", "qwen2", true, false, false, false, Architecture::Windows::kByLayer, 32, 0,
     32768},
    {"LlamaForCausalLM", "llama", false, true, true, false, Architecture::Windows::kNever, 0, 0,
     2048},
    {"Qwen3ForCausalLM", "qwen3", false, true, false, true, Architecture::Windows::kByLayer, 32,
     128, 32768},
    {"MistralForCausalLM", "mistral", false, false, false, false, Architecture::Windows::kAllLayers,
     8, 0, 131072},
};

/// Typed reading of one JSON object. The first wrong field is kept; later reads are harmless.
class Fields {
 public:
  Fields(const Json& object, std::string what) : object_(object), what_(std::move(what)) {}

  bool has(const char* name) const {
    return object_.is_object() && object_.contains(name) && !object_[name].is_null();
  }
  /// There, and explicitly null.
  bool is_null(const char* name) const {
    return object_.is_object() && object_.contains(name) && object_[name].is_null();
  }
  int64_t integer(const char* name, int64_t fallback) {
    if (!has(name)) return fallback;
    if (!object_[name].is_number_integer()) return wrong(name, "an integer"), fallback;
    return object_[name].get<int64_t>();
  }
  /// A size: present and at least 1, within what a tensor dimension can sensibly be.
  int64_t size(const char* name) {
    if (!has(name)) return missing(name), 1;
    return positive(name, 1);
  }
  int64_t positive(const char* name, int64_t fallback) {
    const int64_t value = integer(name, fallback);
    if (value < 1 || value > int64_t{1} << 31) return wrong(name, "a positive integer"), 1;
    return value;
  }
  double number(const char* name, double fallback) {
    if (!has(name)) return fallback;
    if (!object_[name].is_number()) return wrong(name, "a number"), fallback;
    return object_[name].get<double>();
  }
  std::optional<double> maybe_number(const char* name) {
    if (!has(name)) return std::nullopt;
    return number(name, 0);
  }
  bool boolean(const char* name, bool fallback) {
    if (!has(name)) return fallback;
    if (!object_[name].is_boolean()) return wrong(name, "true or false"), fallback;
    return object_[name].get<bool>();
  }
  std::string text(const char* name, std::string fallback) {
    if (!has(name)) return fallback;
    if (!object_[name].is_string()) return wrong(name, "a string"), fallback;
    return object_[name].get<std::string>();
  }
  const Json& operator[](const char* name) const { return object_[name]; }

  void missing(const char* name) {
    fail(invalid_input(fmt::format("{}: `{}` is missing", what_, name)));
  }
  void wrong(const char* name, std::string_view expected) {
    fail(invalid_input(fmt::format("{}: `{}` must be {}, is {}", what_, name, expected,
                                   dump_json(object_[name]).substr(0, 60))));
  }
  void fail(Error error) {
    if (!error_) error_ = std::move(error);
  }
  Result<> status() const {
    if (error_) return *error_;
    return {};
  }

 private:
  const Json& object_;
  std::string what_;
  std::optional<Error> error_;
};

Result<const Architecture*> find_architecture(Fields& fields) {
  std::string name;
  if (fields.has("architectures")) {
    const Json& list = fields["architectures"];
    if (!list.is_array() || (!list.empty() && !list[0].is_string())) {
      fields.wrong("architectures", "a list of names");
      return fields.status().error();
    }
    if (!list.empty()) name = list[0].get<std::string>();
  }
  const std::string model_type = fields.text("model_type", "");
  LORRY_TRY(fields.status());
  if (name.empty() && model_type.empty()) {
    return invalid_input(
        "config.json: neither `architectures` nor `model_type` is there; is this a model?");
  }
  const bool by_name = !name.empty();
  for (const auto& candidate : kArchitectures) {
    if (by_name ? candidate.name != name : candidate.model_type != model_type) continue;
    if (!model_type.empty() && candidate.model_type != model_type) break;
    return &candidate;
  }
  const std::string shown =
      !by_name ? "model_type " + model_type
               : name + (model_type.empty() ? "" : fmt::format(" (model_type {})", model_type));
  return unsupported(fmt::format("architecture {} is not supported; supported are {}", shown,
                                 fmt::join(supported_architectures(), ", ")));
}

/// Features of a checkpoint that would silently give other numbers if they were ignored.
Result<> refuse_unsupported(Fields& fields) {
  if (fields.has("quantization_config")) {
    const Json& quantization = fields["quantization_config"];
    std::string method = "of an unnamed method";
    if (quantization.is_object() && quantization.contains("quant_method")) {
      method = dump_json(quantization["quant_method"]);
    }
    return unsupported(
        fmt::format("config.json: the weights are quantised ({}); lorry reads float32, bfloat16 "
                    "and float16 checkpoints: take the unquantised model",
                    method));
  }
  const std::string act = fields.text("hidden_act", "silu");
  if (act != "silu" && act != "swish") {
    return unsupported(
        fmt::format("config.json: hidden_act {} is not supported; only silu is", act));
  }
  return fields.status();
}

Result<RopeConfig::Type> rope_type(const std::string& name) {
  // "dynamic" equals the unscaled form up to max_position_embeddings, beyond which no run goes.
  if (name == "default" || name == "dynamic") return RopeConfig::Type::kDefault;
  if (name == "linear") return RopeConfig::Type::kLinear;
  if (name == "llama3") return RopeConfig::Type::kLlama3;
  if (name == "yarn") return RopeConfig::Type::kYarn;
  return unsupported(fmt::format(
      "config.json: rope type {} is not supported; default, linear, dynamic, llama3 and yarn are",
      name));
}

Result<> check_rope(const RopeConfig& rope) {
  const auto positive = [](double x) { return std::isfinite(x) && x > 0; };
  if (!positive(rope.theta) || !positive(rope.factor)) {
    return invalid_input("config.json: rope_theta and rope factor must be positive");
  }
  if (rope.type == RopeConfig::Type::kLlama3 &&
      (!positive(rope.low_freq_factor) || rope.high_freq_factor <= rope.low_freq_factor)) {
    return invalid_input("config.json: llama3 rope needs 0 < low_freq_factor < high_freq_factor");
  }
  return {};
}

/// `top` is config.json. Today's form keeps everything in rope_parameters; before, rope_theta stood
/// beside rope_scaling, whose type was first called "type".
Result<RopeConfig> parse_rope(Fields& top, int64_t max_positions) {
  static const Json kEmpty = Json::object();
  const auto filled = [&](const char* name) {
    return top.has(name) && top[name].is_object() && !top[name].empty();
  };
  const char* source = filled("rope_scaling") ? "rope_scaling" : "rope_parameters";
  const Json& object = filled(source) ? top[source] : kEmpty;
  Fields fields(object, std::string("config.json: ") + source);
  for (const auto& [key, value] : object.items()) {
    if (value.is_object()) {
      return unsupported(
          fmt::format("config.json: {} by layer type (`{}`) is not supported", source, key));
    }
  }

  RopeConfig rope;
  const std::string type = fields.text("rope_type", fields.text("type", "default"));
  LORRY_TRY(fields.status());
  LORRY_ASSIGN(rope.type, rope_type(type));
  rope.theta = fields.number("rope_theta", top.number("rope_theta", 10000.0));
  const double partial =
      fields.number("partial_rotary_factor", top.number("partial_rotary_factor", 1.0));
  if (partial != 1.0) {
    return unsupported(
        fmt::format("config.json: partial_rotary_factor {} is not supported", partial));
  }
  rope.original_max_position_embeddings =
      top.has("original_max_position_embeddings")
          ? top.positive("original_max_position_embeddings", max_positions)
          : fields.positive("original_max_position_embeddings", max_positions);
  if (rope.type != RopeConfig::Type::kDefault) {
    if (!fields.has("factor") && rope.type != RopeConfig::Type::kYarn) fields.missing("factor");
    rope.factor = fields.number(
        "factor", static_cast<double>(max_positions) / rope.original_max_position_embeddings);
  }
  if (rope.type == RopeConfig::Type::kLlama3) {
    for (const char* name : {"low_freq_factor", "high_freq_factor"}) {
      if (!fields.has(name)) fields.missing(name);
    }
  }
  rope.low_freq_factor = fields.number("low_freq_factor", 1.0);
  rope.high_freq_factor = fields.number("high_freq_factor", 4.0);
  rope.beta_fast = fields.number("beta_fast", 32.0);
  rope.beta_slow = fields.number("beta_slow", 1.0);
  rope.attention_factor = fields.maybe_number("attention_factor");
  rope.mscale = fields.maybe_number("mscale");
  rope.mscale_all_dim = fields.maybe_number("mscale_all_dim");
  rope.truncate = fields.boolean("truncate", true);
  LORRY_TRY(top.status());
  LORRY_TRY(fields.status());
  LORRY_TRY(check_rope(rope));
  return rope;
}

Result<std::vector<int64_t>> parse_windows(Fields& fields, const Architecture& architecture,
                                           int64_t layers) {
  std::vector<int64_t> windows(layers, 0);
  if (architecture.windows == Architecture::Windows::kNever) return windows;
  // An explicit null means none; silence means transformers' 4096.
  const int64_t window =
      fields.is_null("sliding_window") ? 0 : fields.positive("sliding_window", 4096);
  if (architecture.windows == Architecture::Windows::kAllLayers) {
    std::fill(windows.begin(), windows.end(), window);
    return windows;
  }
  if (!fields.boolean("use_sliding_window", false)) return windows;
  if (!fields.has("layer_types")) {
    const int64_t first = fields.integer("max_window_layers", 28);
    for (int64_t i = std::max<int64_t>(first, 0); i < layers; ++i) windows[i] = window;
    return windows;
  }
  const Json& types = fields["layer_types"];
  if (!types.is_array() || static_cast<int64_t>(types.size()) != layers) {
    return invalid_input("config.json: `layer_types` must name num_hidden_layers layers");
  }
  for (int64_t i = 0; i < layers; ++i) {
    const std::string type = types[i].is_string() ? types[i].get<std::string>() : "";
    if (type == "sliding_attention") {
      windows[i] = window;
    } else if (type != "full_attention") {
      return unsupported(fmt::format("config.json: layer type {} of layer {} is not supported",
                                     dump_json(types[i]), i));
    }
  }
  return windows;
}

/// eos_token_id is one id, a list, or null.
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

Result<std::string> parse_dtype(Fields& fields) {
  std::string dtype = fields.text("dtype", fields.text("torch_dtype", ""));
  LORRY_TRY(fields.status());
  if (dtype.starts_with("torch.")) dtype.erase(0, 6);
  if (dtype.empty() || dtype == "bfloat16" || dtype == "float16" || dtype == "float32") {
    return dtype;
  }
  return unsupported(fmt::format("config.json: dtype {} is not supported", dtype));
}

Result<> check_heads(const ModelConfig& config) {
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    return invalid_input(
        fmt::format("config.json: num_attention_heads {} is not a multiple of "
                    "num_key_value_heads {}",
                    config.num_attention_heads, config.num_key_value_heads));
  }
  if (config.head_dim % 2 != 0) {
    return invalid_input(fmt::format(
        "config.json: head_dim {} is odd; rotary embeddings need an even one", config.head_dim));
  }
  return {};
}

Result<int64_t> parse_head_dim(Fields& fields, const Architecture& architecture,
                               const ModelConfig& config) {
  if (fields.has("head_dim")) return fields.positive("head_dim", 1);
  if (architecture.default_head_dim > 0) return architecture.default_head_dim;
  if (config.hidden_size % config.num_attention_heads != 0) {
    return invalid_input(
        fmt::format("config.json: hidden_size {} is not a multiple of num_attention_heads {}",
                    config.hidden_size, config.num_attention_heads));
  }
  return config.hidden_size / config.num_attention_heads;
}

}  // namespace

Result<ModelConfig> parse_model_config(const Json& json, const Json& generation_config) {
  if (!json.is_object()) return invalid_input("config.json: not a JSON object");
  Fields fields(json, "config.json");
  LORRY_ASSIGN(const Architecture* architecture, find_architecture(fields));
  LORRY_TRY(refuse_unsupported(fields));

  ModelConfig config;
  config.architecture = architecture->name;
  config.model_type = architecture->model_type;
  config.vocab_size = fields.size("vocab_size");
  config.hidden_size = fields.size("hidden_size");
  config.intermediate_size = fields.size("intermediate_size");
  config.num_hidden_layers = fields.size("num_hidden_layers");
  config.num_attention_heads = fields.size("num_attention_heads");
  LORRY_TRY(fields.status());
  config.num_key_value_heads = fields.positive(
      "num_key_value_heads", architecture->default_kv_heads > 0 ? architecture->default_kv_heads
                                                                : config.num_attention_heads);
  LORRY_ASSIGN(config.head_dim, parse_head_dim(fields, *architecture, config));
  config.max_position_embeddings =
      fields.positive("max_position_embeddings", architecture->default_positions);
  config.rms_norm_eps = fields.number("rms_norm_eps", 1e-6);
  const bool attention_bias =
      architecture->reads_attention_bias && fields.boolean("attention_bias", false);
  config.qkv_bias = architecture->always_qkv_bias || attention_bias;
  config.o_bias = attention_bias;
  config.mlp_bias = architecture->reads_mlp_bias && fields.boolean("mlp_bias", false);
  config.qk_norm = architecture->qk_norm;
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", false);
  LORRY_TRY(fields.status());
  LORRY_TRY(check_heads(config));
  LORRY_ASSIGN(config.sliding_window,
               parse_windows(fields, *architecture, config.num_hidden_layers));
  LORRY_ASSIGN(config.rope, parse_rope(fields, config.max_position_embeddings));
  LORRY_ASSIGN(config.dtype, parse_dtype(fields));
  LORRY_TRY(add_eos(json, "config.json", config.eos_token_ids));
  LORRY_TRY(add_eos(generation_config, "generation_config.json", config.eos_token_ids));
  LORRY_TRY(fields.status());
  return config;
}

const std::vector<std::string>& supported_architectures() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> names;
    for (const auto& architecture : kArchitectures) names.emplace_back(architecture.name);
    return names;
  }();
  return kNames;
}

}  // namespace lorry::model
