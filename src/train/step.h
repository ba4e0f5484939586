// One optimiser step: forward, backward, clipping and update, launched without waiting for any of
// it.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <memory>
#include <optional>

#include "model/lora.h"
#include "model/transformer.h"
#include "train/batch.h"
#include "train/block_runner.h"
#include "train/objective.h"
#include "train/optimizer.h"
#include "train/trainable.h"

namespace lorry::train {

/// What a step came to.
struct StepNumbers {
  double loss = 0;       ///< mean over its targets
  double grad_norm = 0;  ///< before clipping
};

/// The same on its way from the device.
class PendingNumbers {
 public:
  /// Scalars on one device.
  PendingNumbers(const at::Tensor& loss, const at::Tensor& grad_norm);
  /// Waits for this step, not for what was launched after it.
  StepNumbers read() const;

 private:
  at::Tensor host_;  // (2) float64
  std::optional<c10::Event> copied_;
};

struct StepOptions {
  Recompute recompute = Recompute::kNone;
  double dropout = 0;        ///< before the adapter
  double max_grad_norm = 0;  ///< 0: no clipping
};

/// Not thread-safe.
class StepRunner {
 public:
  /// All outlive it. `adapter` is null in full training.
  StepRunner(const model::Transformer& model, std::shared_ptr<const model::LoraAdapter> adapter,
             Trainable& trainable, AdamW& optimizer, StepOptions options);

  /// Moves the parameters, unless a gradient is not finite: then they stay as they are. Gradients
  /// are multiplied by `loss_scale` until they are summed.
  PendingNumbers run(const StepBatch& batch, double learning_rate, double loss_scale);

 private:
  at::Tensor gradients(const StepBatch& batch, double loss_scale);

  const model::Transformer& model_;
  std::shared_ptr<const model::LoraAdapter> adapter_;
  Trainable& trainable_;
  AdamW& optimizer_;
  StepOptions options_;
  std::unique_ptr<Objective> objective_ = supervised();
};

}  // namespace lorry::train
