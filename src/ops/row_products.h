// Products of float32 activations with weights that are read as they are held, on a CPU. Of one row
// of x they take the time that reading the weight takes; and a row's result is the same bit for bit
// whatever other rows are multiplied with it.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>

#include "ops/weight.h"

namespace lorry::ops::cpu {

/// Modules whose products are computed together.
using Weights = std::span<const Weight* const>;

/// Whether dense matrices of this dtype are read so: bfloat16 and float16, on a processor with
/// AVX2, FMA and F16C.
bool reads_rows_of(at::ScalarType dtype);

/// Whether `row_products` takes these: float32 x and contiguous matrices of one such dtype, with as
/// many columns as x has, on such a CPU.
bool takes_rows(const at::Tensor& x, Weights weights);

/// x W^T + bias for each weight, side by side. x: (T, in). Returns (T, the sum of their rows)
/// float32. No gradient.
at::Tensor row_products(const at::Tensor& x, Weights weights);

}  // namespace lorry::ops::cpu
