// How the blocks run in training: what of them is kept for the backward pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "model/transformer.h"

namespace lorry::train {

/// What of the activations stays between forward and backward pass; the rest is computed again. All
/// give the same numbers, bit for bit.
enum class Recompute {
  kNone,     ///< everything that the backward pass reads stays
  kLight,    ///< outputs of norms and gates are computed again, where ops::lora_linear reads them
  kFull,     ///< only the inputs of the blocks stay; each block runs twice
  kOffload,  ///< the same, the inputs in pinned host memory (on a CPU they are there anyway)
};

/// "none", "light", "full", "offload", and back. Another name is kNone.
Recompute recompute_from(std::string_view name);
std::string_view recompute_name(Recompute recompute);

/// model.forward(input_ids, positions, attention, adapters), differentiable once. `attention` and
/// `adapters` outlive the backward pass, and weights and adapters do not change before it. Called
/// from one thread at a time.
at::Tensor run_blocks(const model::Transformer& model, const at::Tensor& input_ids,
                      const at::Tensor& positions, model::AttentionView& attention,
                      const model::AdapterView& adapters, Recompute recompute);

}  // namespace lorry::train
