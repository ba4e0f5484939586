// What a training minimises.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "train/batch.h"
#include "train/loss.h"

namespace lorry::train {

/// One objective of a run. The trainer runs the model forward over a micro-batch, asks for the
/// gradient of the hidden states that have a target, and runs the model backward from it. Not
/// thread-safe.
class Objective {
 public:
  virtual ~Objective() = default;
  /// hidden: (N, H), the rows of batch.target_rows, without a graph. `scale` multiplies gradients
  /// alone. `head_grad`: (V, H) float32, to be added to; undefined where the head is frozen.
  virtual HeadLoss gradients(const MicroBatch& batch, const at::Tensor& hidden, const Head& head,
                             double scale, const at::Tensor& head_grad) = 0;
};

/// Supervised fine-tuning: cross-entropy of the target tokens.
std::unique_ptr<Objective> supervised();

}  // namespace lorry::train
