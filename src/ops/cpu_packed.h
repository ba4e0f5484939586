// Matrices in oneDNN's own layout, which reads at memory speed where few rows are multiplied: in
// bf16 two to three times at::linear's rate at one row.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/weight.h"

namespace lorry::ops::cpu {

/// Whether oneDNN multiplies bf16 on this processor (AVX-512 or newer). Elsewhere libtorch falls
/// back to loops that are hundreds of times slower than its float32 products.
bool has_bf16_products();

/// Whether `matrix` can be packed: bfloat16 or float32 on a CPU whose libtorch has
/// oneDNN's products of it.
bool can_pack(const at::Tensor& matrix);
/// A dense weight in oneDNN's layout; the dense matrix is not kept.
Weight pack(const Weight& dense);
/// x: (..., in), of the dtype that was packed. No gradient.
at::Tensor linear_packed(const at::Tensor& x, const Weight& weight);

}  // namespace lorry::ops::cpu
