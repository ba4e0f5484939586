// How trained weights become 16-bit numbers again, without losing what was trained.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lorry::model {

/// `after` (float32) in the dtype of `before`, which it was trained from; both of one shape.
/// Rounded to nearest, as `peft` does, where that keeps the change.
///
/// A short training changes most weights by less than half a unit in the last place of a 16-bit
/// number, so that rounding to nearest gives `before` back and loses the training. Where the share
/// of the change that would be kept, <rounded - before, after - before> / |after - before|^2, is
/// off 1 by more than 5 %, each number goes up or down at random instead, with probabilities that
/// keep its mean (stochastic rounding; Gupta et al. 2015, "Deep Learning with Limited Numerical
/// Precision"). The choices are those of `seed`: the same on every call and device.
at::Tensor round_trained(const at::Tensor& before, const at::Tensor& after, uint64_t seed);

}  // namespace lorry::model
