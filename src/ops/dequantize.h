// Quantised weights widened by kernels of ours on a CUDA device; weight.h and nf4.h have the
// formats and what serves other devices.
#pragma once

#include "ops/weight.h"

namespace lorry::ops {

/// Each writes a weight's numbers to `out`: (out, in), contiguous, float32, bfloat16 or float16.
/// The same bits as on a CPU.
struct DequantizeImplementation {
  /// `numbers`: the 16 of the codes, on the host; `scale_numbers`: (256) float32, those of the
  /// codes of a scale, on the weight's device.
  void (*nf4)(const Weight& weight, const float* numbers, const at::Tensor& scale_numbers,
              const at::Tensor& out);
  void (*fp8_rows)(const Weight& weight, const at::Tensor& out);
};

}  // namespace lorry::ops
