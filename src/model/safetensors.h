// safetensors files: https://github.com/huggingface/safetensors (format section of its README).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "store/bucket.h"

namespace lorry::model {

/// All tensors of a checkpoint directory: model.safetensors, or the shards that
/// model.safetensors.index.json names. Headers are checked against file sizes on opening; tensors
/// are read (mapped, for a local bucket) when asked for. Thread-safe.
class SafetensorsReader {
 public:
  /// `stem` is "model" for checkpoints, "adapter_model" for adapters.
  static Result<std::shared_ptr<SafetensorsReader>> open(const store::Bucket& bucket,
                                                         const std::string& dir,
                                                         const std::string& stem);
  ~SafetensorsReader();

  bool contains(const std::string& name) const;
  std::vector<std::string> names() const;
  /// Shape of a tensor; empty if it is not there.
  std::vector<int64_t> shape(const std::string& name) const;
  /// "F32", "BF16", ... as the file says it; empty if it is not there.
  std::string dtype(const std::string& name) const;
  /// The tensor on the CPU in its stored dtype; it may share the mapped file's memory, so do not
  /// write to it. Not found names the tensor and the directory.
  Result<at::Tensor> tensor(const std::string& name) const;

 private:
  struct Impl;
  explicit SafetensorsReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Writes one safetensors file, metadata {"format": "pt"}. Tensors are stored in the given order.
Result<> write_safetensors(const store::Bucket& bucket, const std::string& path,
                           const NamedTensors& tensors);

}  // namespace lorry::model
