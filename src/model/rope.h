// Rotary position embedding: frequencies and angles; fused_ops.h applies them.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/config.h"

namespace lorry::model {

/// What scales the angles and the embedding, once for a model.
struct RopeFrequencies {
  at::Tensor inv_freq;           ///< (D/2) float32, on the CPU
  double attention_scale = 1.0;  ///< factor on cos and sin (YaRN)
};
RopeFrequencies rope_frequencies(const RopeConfig& rope, int64_t head_dim);

/// cos and sin of one step's positions, (T, 1, D/2) in the model's dtype.
struct RopeAngles {
  at::Tensor cos, sin;
};
RopeAngles rope_angles(const at::Tensor& positions, const at::Tensor& inv_freq,
                       double attention_scale, at::ScalarType dtype);

}  // namespace lorry::model
