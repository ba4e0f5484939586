// What the parts of liblorry_cuda.so hand to its table (cuda_module_entry.cc): a line for each
// operation with kernels.
#pragma once

#include "ops/cuda_driver.h"
#include "ops/cuda_module.h"

namespace lorry::ops {

extern const CudaGraphFunctions kCudaGraph;
void sum_over_devices(std::vector<at::Tensor>& tensors);

extern const NormRopeImplementation kCudaNormRope;
const CudaKernels& norm_rope_kernels();

extern const PagedAttentionImplementation kCudaPagedAttention;
const CudaKernels& paged_attention_kernels();

extern const RmsNormImplementation kCudaRmsNorm;
const CudaKernels& residual_rms_norm_kernels();

extern const CrossEntropyImplementation kCudaCrossEntropy;
const CudaKernels& cross_entropy_kernels();

extern const DequantizeImplementation kCudaDequantize;
const CudaKernels& dequantize_kernels();

extern const GateImplementation kCudaGate;
const CudaKernels& gate_kernels();

extern const RopeImplementation kCudaRope;
const CudaKernels& rope_kernels();

}  // namespace lorry::ops
