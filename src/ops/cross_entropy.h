// Cross-entropy of next tokens, with its gradient in the place of the logits.
#pragma once

#include <ATen/core/Tensor.h>

namespace lorry::ops {

/// What turns the head's product x into logits: softcap * tanh(scale * x / softcap).
struct LogitTransform {
  double scale = 1;
  double softcap = 0;  ///< 0: no cap, scale * x
};

/// Turns logits into scale * (softmax - one hot), the gradient of `scale` times the loss, and
/// returns the sum of the rows' losses in nats: a float64 scalar on the device of the logits.
///
/// logits: (n, V), float32, bfloat16 or float16, rows contiguous; targets: (n) int64. Computed in
/// float32, rounded once. Three passes over a row on a CPU (float32, bfloat16), one kernel on CUDA,
/// libtorch's ops elsewhere. Deterministic. Waits for nothing.
///
/// With a transform, `logits` is the head's product and gets the gradient of that; each operation
/// of the transform rounds to its dtype, as in `transformers`.
at::Tensor cross_entropy_(at::Tensor& logits, const at::Tensor& targets, double scale,
                          const LogitTransform& transform = {});

/// For CUDA devices: as above, targets contiguous.
struct CrossEntropyImplementation {
  at::Tensor (*cross_entropy)(const at::Tensor& logits, const at::Tensor& targets, double scale,
                              const LogitTransform& transform);
};

}  // namespace lorry::ops
