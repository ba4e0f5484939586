// A model's directory in a bucket, in the Hub's layout: the one place that reads config.json,
// generation_config.json and the headers of the weights. Free of libtorch.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/result.h"
#include "hub/safetensors_header.h"
#include "store/bucket.h"

namespace lorry::hub {

/// The safetensors files of a directory, their headers checked, no tensor read.
struct Checkpoint {
  struct File {
    std::string path;  ///< in the bucket
    std::shared_ptr<arrow::io::RandomAccessFile> input;
  };
  struct Tensor : TensorInfo {
    size_t file = 0;  ///< index of `files`
  };
  std::vector<File> files;
  std::map<std::string, Tensor> tensors;  ///< by name
};

/// Opens `dir`/`stem`.safetensors, or the files that `stem`.safetensors.index.json names. `stem` is
/// "model" for checkpoints, "adapter_model" for adapters. Fails with not found if there is neither
/// or a file of the index is missing, unsupported if the weights have another format, corrupt data
/// as read_safetensors_header does.
Result<Checkpoint> open_checkpoint(const store::Bucket& bucket, const std::string& dir,
                                   const std::string& stem);

/// Reads a small file of a model directory; nullopt if it is not there. What chat::Chat::load
/// takes.
using TextFiles = std::function<Result<std::optional<std::string>>(std::string_view name)>;
/// Those of `dir`; `bucket` must outlive the result.
TextFiles text_files(const store::Bucket& bucket, std::string dir);

/// Immutable after opening, hence thread-safe. The bucket must outlive it.
class ModelDir {
 public:
  /// Reads config.json and generation_config.json. Not found if there is no config.json.
  static Result<ModelDir> open(const store::Bucket& bucket, const std::string& dir);

  const std::string& path() const { return path_; }
  const Json& config() const { return config_; }
  const Json& generation_config() const { return generation_config_; }  ///< null: there is none
  TextFiles text_files() const { return hub::text_files(*bucket_, path_); }
  /// Opens the files and reads their headers.
  Result<Checkpoint> open_checkpoint() const {
    return hub::open_checkpoint(*bucket_, path_, "model");
  }
  /// "bfloat16", "float16" or "float32": what the weights are stored in, for a config.json that
  /// names no dtype. Reads the headers.
  Result<std::string> stored_dtype() const;

 private:
  ModelDir(const store::Bucket& bucket, std::string path)
      : bucket_(&bucket), path_(std::move(path)) {}

  const store::Bucket* bucket_;
  std::string path_;
  Json config_, generation_config_;
};

/// The dtype of the token embedding, else (it is quantised, or has an unknown name) that of the
/// most bytes among the three float dtypes; "float32" if no tensor has one of them.
std::string stored_dtype(const Checkpoint& checkpoint);

}  // namespace lorry::hub
