// Cross-entropy of next tokens, with its gradient in the place of the logits.
#pragma once

#include <ATen/core/Tensor.h>

namespace lorry::ops {

/// Turns logits into scale * (softmax - one hot), the gradient of `scale` times the loss, and
/// returns the sum of the rows' losses in nats: a float64 scalar on the device of the logits.
///
/// logits: (n, V), float32, bfloat16 or float16, rows contiguous; targets: (n) int64. Computed in
/// float32, rounded once. Three passes over a row on a CPU (float32, bfloat16), libtorch's ops
/// elsewhere. Deterministic. Waits for nothing.
at::Tensor cross_entropy_(at::Tensor& logits, const at::Tensor& targets, double scale);

}  // namespace lorry::ops
