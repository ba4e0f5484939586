// How many tokens one forward pass takes, and how much memory they need.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/spec.h"
#include "train/block_runner.h"

namespace lorry::train {

/// Tokens that a micro-batch concatenates: enough to keep the matrix units busy, few enough that
/// activations stay within a share of memory. Depends on the arguments alone, never on what is free
/// at the moment, so that a run that is resumed computes the same numbers.
int64_t micro_batch_tokens(const model::ModelSpec& spec, at::Device device);

/// Bytes that one token of a micro-batch holds on the device at the peak of the backward pass, in
/// 16 bits, roughly.
int64_t activation_bytes(const model::ModelSpec& spec,
                         Checkpointing checkpointing = Checkpointing::kOff,
                         bool inputs_on_device = true);

}  // namespace lorry::train
