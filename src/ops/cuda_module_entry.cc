// The one symbol that liblorry_cuda.so exports: its table of functions.
#include <c10/cuda/CUDAStream.h>
#include <torch/headeronly/version.h>

#include <exception>

#include "base/version.h"
#include "ops/cuda_module_parts.h"

namespace lorry::ops {
namespace {

std::string kernels_fault(int device) {
  try {
    for (const CudaKernels* kernels :
         {&residual_rms_norm_kernels(), &rope_kernels(), &gate_kernels(), &cross_entropy_kernels(),
          &dequantize_kernels(), &norm_rope_kernels(), &paged_attention_kernels()}) {
      kernels->load(device);
    }
    return "";
  } catch (const std::exception& e) {
    return e.what();
  }
}

void* current_stream(int device) {
  return c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device)).stream();
}

}  // namespace
}  // namespace lorry::ops

extern "C" __attribute__((visibility("default"))) const lorry::ops::CudaModule*
lorry_cuda_module() {
  using namespace lorry::ops;
  static const CudaModule kModule = {
      lorry::kVersion, TORCH_ABI_VERSION,   sizeof(CudaModule), &kernels_fault,
      &current_stream, kCudaGraph,          &sum_over_devices,  kCudaRmsNorm,
      kCudaRope,       kCudaGate,           kCudaCrossEntropy,  kCudaDequantize,
      kCudaNormRope,   kCudaPagedAttention,
  };
  return &kModule;
}
