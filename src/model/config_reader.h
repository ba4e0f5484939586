// Typed reading of a config.json.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "model/spec.h"

namespace lorry::model {

/// Fields of one JSON object. The first wrong field is kept as the error; later reads are harmless
/// and give their fallback (sizes: 1), so that a family is read in one go and `status` asked once.
class ConfigReader {
 public:
  /// `what` names the object in errors. The object must outlive the reader.
  explicit ConfigReader(const Json& object, std::string what = "config.json")
      : object_(object), what_(std::move(what)) {}

  bool has(const char* name) const;
  /// There, and explicitly null.
  bool is_null(const char* name) const;
  int64_t integer(const char* name, int64_t fallback);
  /// A size: present and at least 1, within what a tensor dimension can sensibly be.
  int64_t size(const char* name);
  int64_t positive(const char* name, int64_t fallback);
  /// A number of layers or experts: `size`, and small enough to make a list of.
  int64_t count(const char* name, std::optional<int64_t> fallback = std::nullopt);
  double number(const char* name, double fallback);
  std::optional<double> maybe_number(const char* name);
  bool boolean(const char* name, bool fallback);
  std::string text(const char* name, std::string fallback);
  /// A list of numbers; empty if it is not there.
  std::vector<double> numbers(const char* name);
  /// A list of whole numbers or truth values, one a layer; empty if it is not there.
  std::vector<int64_t> per_layer(const char* name, int64_t layers);
  /// `layer_types`, one name a layer; empty if it is not there. Other names than `known` are
  /// refused.
  std::vector<std::string> layer_types(int64_t layers, const std::vector<std::string_view>& known);

  const Json& operator[](const char* name) const { return object_[name]; }
  const Json& json() const { return object_; }
  const std::string& what() const { return what_; }

  void missing(const char* name);
  void wrong(const char* name, std::string_view expected);
  void fail(Error error);
  /// Fails as unsupported unless the field is absent, null or equal to `value`: what lorry would
  /// otherwise ignore in silence.
  void require(const char* name, const Json& value);
  Result<> status() const;

 private:
  const Json& object_;
  std::string what_;
  std::optional<Error> error_;
};

/// `hidden_act`, or `hidden_activation` where it is set, as a gate's activation.
ops::Activation read_activation(ConfigReader& config, const char* fallback);

/// Rotary embedding of a config.json, today's form (rope_parameters) or the earlier (rope_theta
/// beside rope_scaling). `layer_type` picks one of those that are named by layer type; "" where the
/// family has only one. `dim`: of a head; partial_rotary_factor is taken of it.
Result<RopeSpec> read_rope(ConfigReader& config, int64_t dim, int64_t max_positions,
                           double default_theta, const char* layer_type = "");

/// "bfloat16", "float16", "float32"; "" where the configuration names none.
Result<std::string> read_dtype(ConfigReader& config);

/// Adds the ids of `eos_token_id` (one, a list or null) to `ids`. `what` names the file.
Result<> add_eos(const Json& config, const char* what, std::vector<int64_t>& ids);

}  // namespace lorry::model
