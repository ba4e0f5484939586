// For tests: the kernels of an operation where this machine can run them. "cuda" are those of
// liblorry_cuda.so on a GPU, "cuda_on_host" the same compiled for the CPU (cuda_on_host.h).
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <tuple>

#include "ops/cuda_module.h"
#include "ops/device.h"

namespace lorry::ops {

/// What an implementation runs on, and the functions of it.
template <typename Implementation>
struct Target {
  Implementation implementation;
  at::Device device;
};

/// The CUDA module on this machine's GPU, or null and why there is none.
inline const CudaModule* module_on_gpu(std::string& reason) {
  const auto device = resolve_device("cuda");
  if (!device.ok()) return reason = device.error().message, nullptr;
  const CudaModule* const module = cuda_kernels(*device);
  if (module == nullptr) {
    reason = cuda_module().ok() ? "the kernels do not load" : cuda_module().error().message;
  }
  return module;
}

/// `on_host`: null in a build without kernels. Null and a reason where this machine cannot run it.
template <typename Implementation>
std::optional<Target<Implementation>> cuda_target(const std::string& name,
                                                  Implementation CudaModule::*member,
                                                  const Implementation* on_host,
                                                  std::string& reason) {
  if (name == "cuda_on_host") {
    if (on_host != nullptr) return Target<Implementation>{*on_host, at::kCPU};
    return reason = "built without CUDA kernels", std::nullopt;
  }
  const CudaModule* const module = module_on_gpu(reason);
  if (module == nullptr) return std::nullopt;
  return Target<Implementation>{module->*member, *resolve_device("cuda")};
}

/// Tests of kernels, named "cuda_on_host_BFloat16" and so on.
using KernelParam = std::tuple<std::string, at::ScalarType>;

inline auto kernel_params() {
  return testing::Combine(testing::Values("cuda_on_host", "cuda"),
                          testing::Values(at::kFloat, at::kBFloat16, at::kHalf));
}
inline std::string kernel_param_name(const testing::TestParamInfo<KernelParam>& info) {
  return std::get<0>(info.param) + "_" + at::toString(std::get<1>(info.param));
}

/// Half a unit in the last place, relative.
inline double half_unit(at::ScalarType dtype) {
  return dtype == at::kFloat ? 6e-8 : dtype == at::kHalf ? 4.9e-4 : 3.9e-3;
}

}  // namespace lorry::ops
