// NF4 with double quantisation: Dettmers et al. 2023, arXiv:2305.14314, sections 3 and appendix E.
// The numbers are those of bitsandbytes 0.50 on one thread of a CPU (quantize_4bit with
// compress_statistics, then dequantize_4bit), bit for bit, whatever the device and the number of
// threads: weights are always quantised on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "base/result.h"
#include "ops/weight.h"

namespace lorry::ops {

/// Numbers that share a scale, and scales that share a second one.
inline constexpr int64_t kNf4Block = 64, kNf4ScaleBlock = 256;

/// Bytes that a matrix of `numbers` takes.
int64_t nf4_bytes(int64_t numbers);

/// `dense` (any float dtype, any device) as kNf4, on its device. Holds a few MB beside both.
/// Invalid input where a number is NaN or infinite; out * in is a multiple of kNf4Block.
Result<Weight> to_nf4(const Weight& dense);

/// Writes the numbers to `out`: (out * in), contiguous, float32, bfloat16 or float16.
void widen_nf4(const Weight& weight, at::Tensor& out);
/// The same in libtorch's own operations, for any device; a few MB a time beside `out`.
void widen_nf4_plain(const Weight& weight, at::Tensor& out);

/// (256) float32 on a device: the numbers of the codes of a block's scale. Any thread.
at::Tensor nf4_scale_numbers(at::Device device);

}  // namespace lorry::ops
