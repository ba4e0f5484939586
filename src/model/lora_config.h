// What an adapter changes and how: the fields of PEFT's LoraConfig that decide the result. Free of
// libtorch.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "model/spec.h"

namespace lorry::model {

struct LoraConfig {
  int64_t r = 16;
  double alpha = 16;
  double dropout = 0;
  bool use_rslora = false;  ///< scale by alpha / sqrt(r)
  bool use_dora = false;
  std::string bias = "none";  ///< which biases are trained: none, all, lora_only

  /// Names ("q_proj", "self_attn.q_proj"), or one regular expression over whole module names
  /// (`targets_are_pattern`). Empty or "all-linear": every linear map outside experts.
  std::vector<std::string> target_modules;
  bool targets_are_pattern = false;
  std::vector<std::string> exclude_modules;  ///< in the same two forms
  bool excludes_are_pattern = false;
  std::vector<int64_t> layers_to_transform;  ///< empty: all
  /// {pattern, value}: rank and alpha of modules whose name ends in a match; the first that does.
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;
  std::vector<std::string> modules_to_save;  ///< "embed_tokens", "lm_head"

  /// Of one module, after the patterns.
  int64_t rank_of(const std::string& module) const;
  double scale_of(const std::string& module) const;
};

/// Reads adapter_config.json. `where` names the file in errors. Fields of any release of `peft` are
/// read; an unknown one that is set, or a known one that changes the result in a way that lorry
/// does not compute, is refused by name.
Result<LoraConfig> parse_lora_config(const Json& json, const std::string& where);

/// A module of a model: indices into ModelSpec::linears and LinearSpec::modules.
struct ModuleIndex {
  int64_t linear = 0, module = 0;
  bool operator==(const ModuleIndex&) const = default;
};

/// The modules that `config` selects, in the order of the model's list, by `peft`'s rules
/// (tuners_utils.check_target_module_exists). Usage error if a name matches nothing; it lists the
/// names that there are.
Result<std::vector<ModuleIndex>> select_modules(const ModelSpec& model, const LoraConfig& config);

/// "q_proj" of "model.layers.3.self_attn.q_proj".
std::string short_name(const std::string& module);

}  // namespace lorry::model
