// What cross_entropy_cuda.cc hands to the kernels of cross_entropy_cuda.cu, by value. Included by
// both compilers.
#pragma once

#include <cstdint>

namespace lorry::ops {

/// Threads of the block that works on a row, at most.
constexpr int kLossThreads = 1024;

struct CrossEntropyArguments {
  void* logits;            ///< rows of `width` numbers, `row` from one to the next, in elements
  const int64_t* targets;  ///< one for each row
  double* losses;          ///< one for each row
  int64_t row;
  int32_t width;
  float scale;             ///< of the gradients
  float logit_scale, cap;  ///< z = cap tanh(logit_scale x / cap); cap 0: none
};

}  // namespace lorry::ops
