#include "ops/device.h"

#include <ATen/Context.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>  // libtorch_cuda is loaded at run time, where there is one
#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <mutex>

#include "base/system_files.h"
#include "ops/cpu_packed.h"
#include "ops/cuda_module.h"

namespace lorry::ops {
namespace {

/// Loads libtorch_cuda from beside libtorch_cpu, once. Empty on success, else why not.
const std::string& load_cuda() {
  static const std::string kReason = []() -> std::string {
    Dl_info info{};
    const auto* symbol = reinterpret_cast<const void*>(&at::globalContext);
    if (dladdr(symbol, &info) == 0 || info.dli_fname == nullptr) return "libtorch_cpu not found";
    const auto path = std::filesystem::path(info.dli_fname).parent_path() / "libtorch_cuda.so";
    if (!std::filesystem::exists(path)) {
      return "this libtorch has no CUDA part (" + path.string() + " is missing)";
    }
    if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
      const char* why = dlerror();
      return fmt::format("libtorch_cuda does not load: {}", why == nullptr ? "unknown" : why);
    }
    return "";
  }();
  return kReason;
}

/// The number of usable CUDA devices, or why there is none.
Result<int> cuda_devices() {
  const std::string& reason = load_cuda();
  if (!reason.empty()) return unavailable("no CUDA device: " + reason);
  try {
    if (!at::hasCUDA()) return unavailable("no CUDA device: libtorch finds no driver");
    const int count = c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount();
    if (count == 0) return unavailable("no CUDA device is visible");
    return count;
  } catch (const std::exception& e) {
    return unavailable(fmt::format("no CUDA device: {}", e.what()));
  }
}

Result<at::Device> cuda_device(const std::string& name) {
  int index = 0;
  if (name.size() > 4) {
    const char* end = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + 5, end, index);
    if (name[4] != ':' || parsed.ec != std::errc{} || parsed.ptr != end || index < 0) {
      return usage_error(fmt::format("device {}: say auto, cpu, cuda or cuda:N", name));
    }
  }
  auto count = cuda_devices();
  if (!count.ok()) return std::move(count).error().with_context("device " + name);
  if (index >= *count) {
    return unavailable(fmt::format("device {}: there are only {} CUDA devices", name, *count));
  }
  const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(index));
  cuda_kernels(device);  // loaded now, so that a warning comes before the work and not amid it
  return device;
}

/// Of libcudart, which comes with libtorch; null before that is loaded.
template <typename Function>
Function runtime_function(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
}

}  // namespace

Result<at::Device> resolve_device(const std::string& name) {
  if (name == "cpu") return at::Device(at::kCPU);
  if (name == "auto" || name.empty()) {
    const auto device = cuda_device("cuda");
    return device.ok() ? *device : at::Device(at::kCPU);
  }
  if (name.starts_with("cuda")) return cuda_device(name);
  return usage_error(fmt::format("device {}: say auto, cpu, cuda or cuda:N", name));
}

Result<std::vector<at::Device>> resolve_devices(const std::string& name, int64_t ranks) {
  LORRY_ASSIGN(const at::Device first, resolve_device(name));
  std::vector<at::Device> devices{first};
  for (int64_t rank = 1; rank < ranks; ++rank) {
    if (first.is_cpu()) {
      devices.push_back(first);
      continue;
    }
    LORRY_ASSIGN(const at::Device next,
                 resolve_device(fmt::format("cuda:{}", first.index() + rank)));
    devices.push_back(next);
  }
  return devices;
}

Result<at::ScalarType> resolve_dtype(const std::string& name, const std::string& stored,
                                     at::Device device) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  if (name != "auto" && !name.empty()) {
    return usage_error(fmt::format("dtype {}: say auto, float32, bfloat16 or float16", name));
  }
  if (device.is_cuda()) return compute_capability(device) >= 80 ? at::kBFloat16 : at::kHalf;
  if (!cpu::has_bf16_products()) return at::kFloat;
  if (stored == "bfloat16") return at::kBFloat16;
  if (stored == "float16") return at::kHalf;
  return at::kFloat;
}

std::string slow_dtype_warning(at::ScalarType dtype, at::Device device) {
  if (!device.is_cpu() || dtype == at::kFloat || cpu::has_bf16_products()) return "";
  return fmt::format(
      "this processor does not multiply 16-bit numbers: {} takes several times as long as float32, "
      "which --dtype auto chooses",
      dtype_name(dtype));
}

std::string_view dtype_name(at::ScalarType dtype) {
  if (dtype == at::kFloat) return "float32";
  return dtype == at::kHalf ? "float16" : "bfloat16";
}

int compute_capability(at::Device device) {
  if (!device.is_cuda()) return 0;
  // The enum's values are part of CUDA's stable interface.
  constexpr int kMajor = 75, kMinor = 76;
  using GetAttribute = int (*)(int* value, int attribute, int device);
  static const auto get_attribute = runtime_function<GetAttribute>("cudaDeviceGetAttribute");
  if (get_attribute == nullptr) return 0;
  const int index = device.has_index() ? device.index() : 0;
  int major = 0, minor = 0;
  if (get_attribute(&major, kMajor, index) != 0 || get_attribute(&minor, kMinor, index) != 0) {
    return 0;
  }
  return 10 * major + minor;
}

int64_t free_memory(at::Device device) {
  if (!device.is_cuda()) return read_memory().free();
  using GetMemory = int (*)(size_t * free, size_t * total);  // of the current device
  static const auto get_memory = runtime_function<GetMemory>("cudaMemGetInfo");
  const c10::DeviceGuard guard(device);
  size_t free = 0, total = 0;
  if (get_memory == nullptr || get_memory(&free, &total) != 0) return 0;
  return static_cast<int64_t>(free);
}

}  // namespace lorry::ops
