// The files of a model directory as the Hub lays it out, checked without libtorch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace lorry::pipeline {

struct ModelFile {
  std::string name;  ///< in the bucket
  std::string path;  ///< at the source
  int64_t bytes = 0;
};

/// What of `directory` belongs into the bucket: configuration, tokenizer, template, weights (the
/// ones that the index names, where there is one), README and licence. Checked on the way: it is
/// such a directory at all, every safetensors file is as long as its header says, and the index
/// names files and tensors that are there. Sorted by name.
Result<std::vector<ModelFile>> list_model_files(const std::string& directory);

/// The names of the tensors in one safetensors file. Fails with corrupt data, naming the file and
/// the bytes, if the header is broken or the file is not as long as the header says.
/// Format: https://huggingface.co/docs/safetensors (8 bytes header length, JSON, data).
Result<std::vector<std::string>> read_safetensors_names(const std::string& path);

}  // namespace lorry::pipeline
