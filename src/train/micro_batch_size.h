// How many tokens one forward pass takes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/spec.h"

namespace lorry::train {

/// Tokens that a micro-batch concatenates: enough to keep the matrix units busy, few enough that
/// activations stay within a share of memory. Depends on the arguments alone, never on --recompute
/// or on what is free at the moment, so that a run that is resumed computes the same numbers.
int64_t micro_batch_tokens(const model::ModelSpec& spec, at::Device device);

}  // namespace lorry::train
