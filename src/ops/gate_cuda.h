// What gate_cuda.cc hands to the kernels of gate_cuda.cu, by value. Included by both compilers.
#pragma once

#include <cstdint>

namespace lorry::ops {

/// act(gate) * up over `rows` rows of `width` numbers; strides from row to row in elements. `kind`
/// is an Activation::Kind.
struct GateArguments {
  const void *gate, *up;
  void* out;
  int64_t gate_row, up_row;
  int32_t rows, width, kind;
  float alpha, limit;
};

/// `grad` is contiguous; the gradients lie as gate and up do in d_gate and d_up.
struct GateBackwardArguments {
  const void *grad, *gate, *up;
  void *d_gate, *d_up;
  int64_t gate_row, up_row, d_gate_row, d_up_row;
  int32_t rows, width, kind;
  float alpha, limit;
};

}  // namespace lorry::ops
