// One function a family, each in the file of its name: config.json in, description out. The source
// of each is `transformers`' modeling_{model_type}.py. families.cc has the list.
#pragma once

#include "base/result.h"
#include "model/config_reader.h"
#include "model/spec.h"

namespace lorry::model {

Result<ModelSpec> read_deepseek_v2(ConfigReader& config);
Result<ModelSpec> read_deepseek_v3(ConfigReader& config);
Result<ModelSpec> read_gemma2(ConfigReader& config);
Result<ModelSpec> read_gemma3(ConfigReader& config);
Result<ModelSpec> read_gpt_oss(ConfigReader& config);
Result<ModelSpec> read_granite(ConfigReader& config);
Result<ModelSpec> read_granite_hybrid(ConfigReader& config);
Result<ModelSpec> read_llama(ConfigReader& config);
Result<ModelSpec> read_ministral(ConfigReader& config);
Result<ModelSpec> read_ministral3(ConfigReader& config);
Result<ModelSpec> read_qwen2(ConfigReader& config);
Result<ModelSpec> read_qwen3(ConfigReader& config);
Result<ModelSpec> read_mistral(ConfigReader& config);
Result<ModelSpec> read_mistral3(ConfigReader& config);
Result<ModelSpec> read_mixtral(ConfigReader& config);
Result<ModelSpec> read_olmo2(ConfigReader& config);
Result<ModelSpec> read_olmo3(ConfigReader& config);
Result<ModelSpec> read_phi3(ConfigReader& config);
Result<ModelSpec> read_qwen2_moe(ConfigReader& config);
Result<ModelSpec> read_qwen3_moe(ConfigReader& config);
Result<ModelSpec> read_smollm3(ConfigReader& config);

/// Windows of the Qwen families: layers from max_window_layers on slide where use_sliding_window is
/// set, unless layer_types says which.
std::vector<int64_t> qwen_windows(ConfigReader& config, int64_t layers);

}  // namespace lorry::model
