// How the blocks run in training: what of them is kept for the backward pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "model/transformer.h"

namespace lorry::train {

/// What stays between forward and backward pass. All give the same numbers, bit for bit.
enum class Checkpointing {
  kOff,        ///< everything that autograd needs
  kRecompute,  ///< the inputs of the blocks; each block runs once more in the backward pass
  kOffload,    ///< the same, the inputs in host memory (on a CPU they are there anyway)
};

/// "off", "recompute", "offload"; another is kOff.
Checkpointing checkpointing_from(std::string_view name);

/// model.forward(input_ids, positions, attention, adapters), differentiable once. `attention` and
/// `adapters` outlive the backward pass, and weights and adapters do not change before it. Called
/// from one thread at a time.
at::Tensor run_blocks(const model::Transformer& model, const at::Tensor& input_ids,
                      const at::Tensor& positions, model::AttentionView& attention,
                      const model::AdapterView& adapters, Checkpointing checkpointing);

}  // namespace lorry::train
