// How many tokens one forward pass takes, and how much memory they need.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/spec.h"

namespace lorry::train {

/// Tokens a forward pass lays one behind the other: enough to keep the matrix units busy, few
/// enough that activations stay within a share of memory. Depends on the arguments alone, never on
/// what is free at the moment, so that a run that goes on computes the same numbers.
int64_t run_tokens(const model::ModelSpec& spec, at::Device device);

/// Bytes that autograd keeps of one token of a forward pass in 16 bits, roughly.
int64_t activation_bytes(const model::ModelSpec& spec);

}  // namespace lorry::train
