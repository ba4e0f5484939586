// Sums over the GPUs of this machine. Part of liblorry_cuda.so.
#include <c10/cuda/CUDAStream.h>

#include <optional>

#include "ops/cuda_module_parts.h"

// As torch/csrc/cuda/nccl.h declares it, which includes headers of the whole CUDA toolkit.
namespace torch::cuda::nccl {
void all_reduce(const std::vector<at::Tensor>& inputs, std::vector<at::Tensor>& outputs, int32_t op,
                const std::vector<std::optional<c10::cuda::CUDAStream>>& streams,
                const std::vector<void*>& comms);
}  // namespace torch::cuda::nccl

namespace lorry::ops {

void sum_over_devices(std::vector<at::Tensor>& tensors) {
  constexpr int32_t kSum = 0;  // ncclSum
  torch::cuda::nccl::all_reduce(tensors, tensors, kSum, {}, {});
}

}  // namespace lorry::ops
