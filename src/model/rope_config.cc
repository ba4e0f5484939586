// Rotary embedding as config.json describes it; rope.cc has the formulas.
#include <fmt/format.h>

#include <cmath>

#include "model/config_reader.h"

namespace lorry::model {
namespace {

Result<RopeSpec::Type> rope_type(const std::string& name) {
  // "dynamic" equals the unscaled form up to max_position_embeddings, beyond which no run goes.
  if (name == "default" || name == "dynamic") return RopeSpec::Type::kDefault;
  if (name == "linear") return RopeSpec::Type::kLinear;
  if (name == "llama3") return RopeSpec::Type::kLlama3;
  if (name == "yarn") return RopeSpec::Type::kYarn;
  // "su" is what Microsoft's first Phi-3 checkpoints called it.
  if (name == "longrope" || name == "su") return RopeSpec::Type::kLongRope;
  return unsupported(fmt::format(
      "config.json: rope type {} is not supported; default, linear, dynamic, llama3, yarn and "
      "longrope are",
      name));
}

bool is_positive(double x) { return std::isfinite(x) && x > 0; }

Result<> check_rope(const RopeSpec& rope) {
  if (!is_positive(rope.theta) || !is_positive(rope.factor)) {
    return invalid_input("config.json: rope_theta and rope factor must be positive");
  }
  if (rope.type == RopeSpec::Type::kLlama3 &&
      (!is_positive(rope.low_freq_factor) || rope.high_freq_factor <= rope.low_freq_factor)) {
    return invalid_input("config.json: llama3 rope needs 0 < low_freq_factor < high_freq_factor");
  }
  if (rope.dim < 2 || rope.dim % 2 != 0) {
    return invalid_input(fmt::format(
        "config.json: head_dim {}: rotary embeddings need an even number of dimensions", rope.dim));
  }
  const auto half = static_cast<size_t>(rope.dim / 2);
  if (rope.type == RopeSpec::Type::kLongRope &&
      (rope.short_factor.size() != half || rope.long_factor.size() != half)) {
    return invalid_input(fmt::format(
        "config.json: longrope needs {} numbers in short_factor and in long_factor", half));
  }
  return {};
}

/// The object that holds the parameters: rope_scaling or rope_parameters, or its member for
/// `layer_type`.
const Json& rope_object(const ConfigReader& top, const char* layer_type, std::string& source) {
  static const Json kEmpty = Json::object();
  const auto filled = [&](const char* name) {
    return top.has(name) && top[name].is_object() && !top[name].empty();
  };
  source = filled("rope_scaling") ? "rope_scaling" : "rope_parameters";
  if (!filled(source.c_str())) return kEmpty;
  const Json& object = top[source.c_str()];
  if (*layer_type == '\0') return object;
  const auto found = object.find(layer_type);
  if (found == object.end() || !found->is_object()) return object;
  source += std::string(".") + layer_type;
  return *found;
}

void read_scaling(RopeSpec& rope, ConfigReader& fields, int64_t max_positions) {
  using Type = RopeSpec::Type;
  if (rope.type == Type::kLinear || rope.type == Type::kLlama3) {
    if (!fields.has("factor")) fields.missing("factor");
  }
  if (rope.type != Type::kDefault) {
    rope.factor =
        fields.number("factor", static_cast<double>(max_positions) /
                                    static_cast<double>(rope.original_max_position_embeddings));
  }
  if (rope.type == Type::kLlama3) {
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
  rope.query_scale_beta = fields.number("llama_4_scaling_beta", 0);
  if (rope.type == Type::kLongRope) {
    rope.short_factor = fields.numbers("short_factor");
    rope.long_factor = fields.numbers("long_factor");
  }
}

}  // namespace

Result<RopeSpec> read_rope(ConfigReader& top, int64_t dim, int64_t max_positions,
                           double default_theta, const char* layer_type) {
  std::string source;
  const Json& object = rope_object(top, layer_type, source);
  ConfigReader fields(object, "config.json: " + source);
  for (const auto& [key, value] : object.items()) {
    if (value.is_object()) {
      return unsupported(
          fmt::format("config.json: {} by layer type (`{}`) is not supported", source, key));
    }
  }
  RopeSpec rope;
  const std::string type = fields.text("rope_type", fields.text("type", "default"));
  LORRY_TRY(fields.status());
  LORRY_ASSIGN(rope.type, rope_type(type));
  rope.theta = fields.number("rope_theta", top.number("rope_theta", default_theta));
  const double partial =
      fields.number("partial_rotary_factor", top.number("partial_rotary_factor", 1.0));
  if (!(partial > 0 && partial <= 1)) {
    return invalid_input(
        fmt::format("config.json: partial_rotary_factor {} is not in (0, 1]", partial));
  }
  rope.dim = static_cast<int64_t>(static_cast<double>(dim) * partial);
  rope.original_max_position_embeddings =
      top.has("original_max_position_embeddings")
          ? top.positive("original_max_position_embeddings", max_positions)
          : fields.positive("original_max_position_embeddings", max_positions);
  read_scaling(rope, fields, max_positions);
  LORRY_TRY(top.status());
  LORRY_TRY(fields.status());
  LORRY_TRY(check_rope(rope));
  return rope;
}

}  // namespace lorry::model
