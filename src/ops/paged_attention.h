// Attention of single new tokens over the paged cache, by kernels on a CUDA device; attention.h has
// the CPU's.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/attention.h"
#include "ops/step_inputs.h"

namespace lorry::ops {

/// q, out: (T, H, D) contiguous; keys, values: (blocks, tokens a block, K, D) contiguous; H is a
/// multiple of K. float16 or bfloat16, all the same. Scores, softmax and sums are float32.
struct PagedAttentionImplementation {
  /// Whether there is a kernel for them: D a multiple of 8, 32 to 256.
  bool (*takes)(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values);
  /// Writes the rows of `out` of those sequences of the step that have one new token, whose key and
  /// value are in the cache already. One launch, two where a sequence is longer than one split. A
  /// row does not depend on the others: the same bits whatever runs beside it.
  void (*attend)(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                 const StepInputs& inputs, const AttentionParams& params, const at::Tensor& out);
};

}  // namespace lorry::ops
