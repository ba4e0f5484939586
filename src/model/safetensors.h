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

/// What the header of a safetensors file says of a tensor, without its place.
struct TensorHeader {
  std::string name;
  at::ScalarType dtype;
  std::vector<int64_t> shape;
  int64_t bytes() const;
};

/// All tensors of a checkpoint directory: model.safetensors, or the shards that
/// model.safetensors.index.json names. Headers are checked against file sizes on opening; tensors
/// are read (mapped, for a local bucket) when asked for. Thread-safe.
class SafetensorsReader {
 public:
  enum class Access {
    kAnyOrder,  ///< maps local files; fetches a remote file whole at its first tensor
    /// For copying a checkpoint: reads each tensor into memory of its own, so that nothing else
    /// stays in memory. Fast when tensors are asked for in the order in which they lie.
    kInOrder,
  };
  /// `stem` is "model" for checkpoints, "adapter_model" for adapters.
  static Result<std::shared_ptr<SafetensorsReader>> open(const store::Bucket& bucket,
                                                         const std::string& dir,
                                                         const std::string& stem,
                                                         Access access = Access::kAnyOrder);
  ~SafetensorsReader();

  /// What errors begin with: "models/name: ", or nothing at the root of a bucket, which has no
  /// name.
  const std::string& where() const;
  bool contains(const std::string& name) const;
  std::vector<std::string> names() const;
  /// Shape of a tensor; empty if it is not there.
  std::vector<int64_t> shape(const std::string& name) const;
  /// "F32", "BF16", ... as the file says it; empty if it is not there.
  std::string dtype(const std::string& name) const;
  /// The index of the tensor's file and its offset there; tensors are read fastest in ascending
  /// order. Past the last file if there is no such tensor.
  std::pair<size_t, uint64_t> place(const std::string& name) const;
  /// What a writer must know of the tensor. Unsupported if lorry does not read its dtype.
  Result<TensorHeader> header(const std::string& name) const;
  /// The tensor on the CPU in its stored dtype; it may share the mapped file's memory, so do not
  /// write to it. Not found names the tensor and the directory.
  Result<at::Tensor> tensor(const std::string& name) const;

 private:
  struct Impl;
  explicit SafetensorsReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Writes one safetensors file, metadata {"format": "pt"}, a tensor at a time. Not thread-safe.
class SafetensorsWriter {
 public:
  /// `tensors` in the order in which they will be added. Unsupported dtypes are refused.
  static Result<std::unique_ptr<SafetensorsWriter>> create(const store::Bucket& bucket,
                                                           const std::string& path,
                                                           std::vector<TensorHeader> tensors);
  /// The next one; invalid input if it is not as announced. It may be on any device.
  Result<> add(const at::Tensor& tensor);
  /// Makes the file visible; invalid input if tensors are missing.
  Result<> commit();

 private:
  SafetensorsWriter(std::string path, std::vector<TensorHeader> tensors)
      : path_(std::move(path)), tensors_(std::move(tensors)) {}

  std::string path_;
  std::vector<TensorHeader> tensors_;
  size_t next_ = 0;
  std::unique_ptr<store::ObjectWriter> writer_;
};

/// The same for tensors that are all there. They are stored in the given order.
Result<> write_safetensors(const store::Bucket& bucket, const std::string& path,
                           const NamedTensors& tensors);

}  // namespace lorry::model
