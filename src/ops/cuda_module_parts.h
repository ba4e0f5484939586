// What the parts of liblorry_cuda.so hand to its table (cuda_module_entry.cc): a line for each
// operation with kernels.
#pragma once

#include "ops/cuda_driver.h"
#include "ops/cuda_module.h"

namespace lorry::ops {

extern const CudaGraphFunctions kCudaGraph;
void sum_over_devices(std::vector<at::Tensor>& tensors);

extern const RmsNormImplementation kCudaRmsNorm;
const CudaKernels& residual_rms_norm_kernels();

}  // namespace lorry::ops
