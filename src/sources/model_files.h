// Which files of a model directory are needed, checked without libtorch.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "hub/safetensors_header.h"
#include "sources/model_source.h"

namespace lorry::sources {

/// Where a model has its named chat templates, one NAME.jinja each.
inline constexpr char kTemplateDirectory[] = "additional_chat_templates";
/// Whether a file of a model is one of them.
bool is_named_template(std::string_view name);

/// What of the source belongs into the bucket: configuration, tokenizer, template, weights (the
/// safetensors that the index names, where there is one), README and licence. Nothing is there
/// twice: no .bin, GGUF or ONNX beside safetensors, no consolidated weights. Fails, saying what is
/// missing, if it is no model. Sorted by name. Reads config.json and the index.
Result<std::vector<ModelFile>> choose_model_files(const ModelSource& source);

/// Every safetensors file is as long as its header says, and holds the tensors that the index says
/// it does. Reads headers only.
Result<> check_weights(const ModelSource& source, const std::vector<ModelFile>& files);

/// The header of a safetensors file, checked against the file's length.
Result<hub::SafetensorsHeader> read_header(const ModelFile& file);

}  // namespace lorry::sources
