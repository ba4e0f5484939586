// The visible list of families: which architectures lorry reads, and from where.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "model/config_reader.h"
#include "model/spec.h"

namespace lorry::model {

/// One architecture. `read` turns a config.json into a description; it is given the text part where
/// a multimodal checkpoint wraps it.
struct Family {
  std::string_view architecture;  ///< "Qwen2ForCausalLM"
  std::string_view model_type;    ///< "qwen2"
  Result<ModelSpec> (*read)(ConfigReader& config);
  bool wraps_text = false;  ///< config.json holds the language model in `text_config`
};

/// Reads config.json of today's and of earlier `transformers`. An architecture or feature that is
/// not supported is refused by name. `generation_config` may be null; its eos_token_id adds to
/// config's.
Result<ModelSpec> parse_model_spec(const Json& config, const Json& generation_config);

/// The architectures that parse_model_spec accepts.
std::vector<std::string> supported_architectures();

}  // namespace lorry::model
