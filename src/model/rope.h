// Rotary position embedding: frequencies and angles; ops/rope.h applies them.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/spec.h"

namespace lorry::model {

/// What scales the angles and the embedding, once for a model. R numbers of a head turn.
struct RopeFrequencies {
  at::Tensor inv_freq;           ///< (R/2) float32
  double attention_scale = 1.0;  ///< factor on cos and sin (YaRN, longrope)
  /// longrope: frequencies of sequences beyond `long_from` tokens; undefined elsewhere.
  at::Tensor long_inv_freq;
  int64_t long_from = 0;
  /// Ministral 3: see RopeSpec::query_scale_beta.
  double query_scale_beta = 0;
  int64_t query_scale_places = 1;

  RopeFrequencies to(at::Device device) const;
};
RopeFrequencies rope_frequencies(const RopeSpec& rope);

/// cos and sin of one step's positions, (T, 1, R/2) in the model's dtype.
struct RopeAngles {
  at::Tensor cos, sin;
  at::Tensor query_scale;  ///< (T, 1, 1); undefined: none
};
/// positions: (T) int64. context_lengths: (T) int64, needed where long_inv_freq is there.
RopeAngles rope_angles(const at::Tensor& positions, const at::Tensor& context_lengths,
                       const RopeFrequencies& rope, at::ScalarType dtype);

}  // namespace lorry::model
