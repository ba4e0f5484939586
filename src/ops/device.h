// Where a model runs and in which number format.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace lorry::ops {

/// What `--dtype` means: "auto" is the checkpoint's dtype (`stored`: "float32", "bfloat16",
/// "float16") on a CPU that multiplies 16-bit numbers at speed, float32 on one that does not, and
/// on a GPU bf16 where it has it and else fp16.
Result<at::ScalarType> resolve_dtype(const std::string& name, const std::string& stored,
                                     at::Device device);

/// A warning where the device has no instructions for products in `dtype`; else empty.
std::string slow_dtype_warning(at::ScalarType dtype, at::Device device);

/// A compute dtype by its name in config.json: "float32", "bfloat16" or "float16".
std::string_view dtype_name(at::ScalarType dtype);

/// "auto" takes a CUDA device if there is one. Loads libtorch_cuda on the way. "cuda" and "cuda:N"
/// fail with the reason if there is none.
Result<at::Device> resolve_device(const std::string& name);

/// The devices of so many ranks, from the one that `name` says on; a CPU serves all.
Result<std::vector<at::Device>> resolve_devices(const std::string& name, int64_t ranks);

/// 80 for sm_80; 0 for a device that is not CUDA.
int compute_capability(at::Device device);

/// Bytes that this process may still take: of a GPU what its driver says, of the host what is
/// available, less where a container's limit leaves less. 0: not known.
int64_t free_memory(at::Device device);

}  // namespace lorry::ops
