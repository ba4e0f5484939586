// Which files of a model directory are needed, checked without libtorch.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "sources/model_source.h"

namespace lorry::sources {

/// What of the source belongs into the bucket: configuration, tokenizer, template, weights (the
/// safetensors that the index names, where there is one), README and licence. Nothing is there
/// twice: no .bin, GGUF or ONNX beside safetensors, no consolidated weights. Fails, saying what is
/// missing, if it is no model. Sorted by name. Reads config.json and the index.
Result<std::vector<ModelFile>> choose_model_files(const ModelSource& source);

/// Every safetensors file is as long as its header says, and holds the tensors that the index says
/// it does. Reads headers only.
Result<> check_weights(const ModelSource& source, const std::vector<ModelFile>& files);

/// A safetensors file's 8 bytes of length and its header. Fails with corrupt data, naming the file
/// and the bytes, if they are broken or the file is not as long as the header says.
/// Format: https://huggingface.co/docs/safetensors (8 bytes header length, JSON, data).
Result<std::string> read_safetensors_header(const ModelFile& file);

}  // namespace lorry::sources
