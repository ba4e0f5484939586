// Where a checkpoint keeps what a ModelSpec names: prefixes, stacked experts, quantised blocks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "model/packed_weights.h"
#include "model/safetensors.h"
#include "model/spec.h"
#include "ops/weight.h"

namespace lorry::model {

/// Finds and reads the tensors of one checkpoint. Thread-safe; the reader and the spec outlive it.
class StoredWeights {
 public:
  StoredWeights(const SafetensorsReader& reader, const ModelSpec& spec);

  /// The name under which a checkpoint holds the tensor that the spec calls `name`. Saved from the
  /// inner model a checkpoint lacks "model."; multimodal ones put their own prefix before it. A
  /// tied model's one matrix may lie under the head's name.
  std::string stored_name(const std::string& name) const;

  /// That everything the spec names is there, in its shape and a dtype that lorry reads.
  Result<> check() const;

  /// In its stored dtype on the CPU; it may share a mapped file's memory.
  Result<at::Tensor> tensor(const TensorSpec& spec) const;
  /// A module's matrix and bias, on `device` and, where it is not quantised, in `dtype` (nullopt:
  /// as they are stored). Modules whose weights are parts of one tensor are read fastest one after
  /// the other.
  Result<ops::Weight> weight(const LinearSpec& linear, const Module& module,
                             std::optional<at::ScalarType> dtype, at::Device device) const;
  /// Where the first of what `tensor` or `weight` reads lies (SafetensorsReader::place).
  std::pair<size_t, uint64_t> place(const TensorSpec& spec) const;
  std::pair<size_t, uint64_t> place(const Module& module) const;
  /// Whether matrices are stored as another program quantised them (packed_weights.h).
  bool is_quantised() const;
  /// Whether embedding and head are both stored, with different numbers, though the configuration
  /// says that they are tied.
  Result<bool> has_own_head() const;

 private:
  Result<> check_tensor(const std::string& name, const std::vector<int64_t>& shape) const;
  Result<> check_module(const LinearSpec& linear, const Module& module) const;
  Result<> missing(const std::string& name) const;
  bool is_mxfp4(const StoredAt& at) const;
  std::optional<PackedKind> packed(const StoredAt& at) const;
  /// The tensor that was read last into each of these, so that parts of it need not read it again.
  enum Slot { kWeight, kScales, kBias, kSlots };
  Result<at::Tensor> read(const std::string& name, const StoredAt& at, Slot slot) const;

  const SafetensorsReader& reader_;
  const ModelSpec& spec_;
  std::string prefix_;       // what stands for "model."
  std::string head_prefix_;  // what stands before "lm_head."
  mutable std::mutex mutex_;
  mutable std::pair<std::string, at::Tensor> last_[kSlots];  // guarded by mutex_
};

/// A module's part of a stored tensor: a view, (rows, in) for a matrix, (rows) for a bias. Writing
/// to it writes to `stored`.
at::Tensor part_of(const at::Tensor& stored, const StoredAt& at, int64_t rows);

}  // namespace lorry::model
