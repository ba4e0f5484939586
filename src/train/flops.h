// How many floating-point operations a training takes: what its duration can be estimated from.
#pragma once

#include <cstdint>
#include <optional>

#include "model/lora_config.h"
#include "model/spec.h"

namespace lorry::train {

/// What a run works on.
struct RunWork {
  double tokens = 0;    ///< through the blocks
  double targets = 0;   ///< of them with a loss: only these go through the head
  double attended = 0;  ///< keys that queries look at, over all tokens and layers (attended_keys)
};

/// Keys that the tokens of one example of `length` tokens look at, over all layers: a causal
/// triangle, cut at the layer's window.
double attended_keys(const model::ModelSpec& spec, int64_t length);

/// Multiplications and additions of forward and backward pass over `work`. A weight W of p numbers
/// costs 2 p a token forward, 2 p for the gradient of its input and, if it is trained, 2 p for its
/// own: 4 p frozen, 6 p trained (as the low-rank pairs always are). Attention costs 4 of the width
/// of all heads a key forward and twice that backward. Norms, rotations and softmax are left out.
/// Source of the counting: Kaplan et al. 2020, arXiv:2001.08361, table 1; Hoffmann et al. 2022,
/// arXiv:2203.15556, appendix F. `lora`: nullopt for full training.
double training_flops(const model::ModelSpec& spec, const std::optional<model::LoraConfig>& lora,
                      const RunWork& work);

/// Numbers in all low-rank pairs of an adapter.
int64_t lora_parameters(const model::ModelSpec& spec, const model::LoraConfig& lora);

}  // namespace lorry::train
