// How much memory a training takes, and which recomputation suits what there is.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "model/spec.h"
#include "train/block_runner.h"
#include "train/inputs.h"
#include "train/plan.h"

namespace lorry::train {

/// What the memory of a training depends on beside its options.
struct TrainShape {
  const model::ModelSpec& spec;
  at::Device device;
  int64_t parameters = 0;    ///< of the model
  int64_t number_bytes = 2;  ///< of a number of the arithmetic: 2 or 4
  int64_t pass_tokens = 0;   ///< of the largest forward pass
};

int64_t trained_parameters(const TrainOptions& options, const TrainShape& shape);

/// What the linear maps of a training are made of.
enum class MapForm {
  kJoined,   ///< ops::lora_linear; elsewhere `light` is no different from `none`
  kGeneral,  ///< autograd over libtorch's operators
  kDropout,  ///< the same, with dropout before each module
};
MapForm map_form(const TrainOptions& options);

/// Numbers that one token of a pass holds at the peak of the backward pass.
int64_t activation_numbers(const model::ModelSpec& spec, Recompute recompute, MapForm form,
                           bool inputs_on_device);

/// The bytes of each part at its largest; estimates.
TrainMemory training_memory(const TrainOptions& options, const TrainShape& shape,
                            Recompute recompute);

/// Bytes of a checkpoint for each trained parameter: itself and two moments.
inline constexpr int64_t kCheckpointBytes = 12;

/// What `--recompute` names; for auto the first of none, light, full and (on a GPU) offload that
/// fits into `free` bytes, the last if none does, and none where `free` is 0 (not known).
Recompute choose_recompute(const TrainOptions& options, const TrainShape& shape, int64_t free);

/// The ways to recompute that differ with these options, the most memory first.
std::vector<Recompute> recomputes(const TrainOptions& options, at::Device device);

/// Tokens of the largest forward pass that the run can come to, as far as the data set's record
/// says.
int64_t largest_pass(const TrainOptions& options, const Inputs& inputs, at::Device device);

/// Numbers in the tensors of a checkpoint.
Result<int64_t> count_parameters(const store::Bucket& bucket, const std::string& dir);

}  // namespace lorry::train
