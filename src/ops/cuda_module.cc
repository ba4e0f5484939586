#include "ops/cuda_module.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include <array>
#include <filesystem>
#include <mutex>
#include <system_error>

#include "base/log.h"
#include "base/version.h"

namespace lorry::ops {
namespace {

namespace fs = std::filesystem;

constexpr char kFileName[] = "liblorry_cuda.so";
constexpr int kMaxDevices = 64;

/// The folder of the engine, or of the program that this code is linked into (tests).
fs::path own_folder() {
  Dl_info info{};
  const auto* symbol = reinterpret_cast<const void*>(&open_cuda_module);
  std::error_code ec;
  if (dladdr(symbol, &info) != 0 && info.dli_fname != nullptr) {
    const fs::path file(info.dli_fname);
    if (file.is_absolute()) return file.parent_path();
  }
  return fs::read_symlink("/proc/self/exe", ec).parent_path();
}

Result<> check_build(const CudaModule& module, const std::string& path) {
  const std::string_view version = module.version;
  if (version == kVersion && module.torch_version == TORCH_ABI_VERSION &&
      module.size == sizeof(CudaModule)) {
    return {};
  }
  return unavailable(fmt::format(
      "{} is of lorry {} and libtorch {}.{}, this lorry {} needs its own; build both again with "
      "./dev build",
      path, version, module.torch_version >> 56, module.torch_version >> 48 & 0xff, kVersion));
}

}  // namespace

Result<const CudaModule*> open_cuda_module(const std::string& path) {
  std::error_code ec;
  if (!fs::exists(path, ec)) {
    return not_found(fmt::format("{} is not there: lorry was built without CUDA kernels", path));
  }
  void* const library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = ::dlerror();
    return unavailable(fmt::format("{} does not load: {}", path, why ? why : "unknown reason"));
  }
  const auto entry =
      reinterpret_cast<decltype(&lorry_cuda_module)>(::dlsym(library, "lorry_cuda_module"));
  if (entry == nullptr) return corrupt_data(path + " is not lorry's CUDA module");
  const CudaModule* const module = entry();
  LORRY_TRY(check_build(*module, path));
  return module;
}

const Result<const CudaModule*>& cuda_module() {
  static const auto kModule = open_cuda_module((own_folder() / kFileName).string());
  return kModule;
}

const CudaModule* cuda_kernels(at::Device device) {
  if (!device.is_cuda()) return nullptr;
  struct Once {
    std::once_flag flag;
    bool usable = false;
  };
  static std::array<Once, kMaxDevices> checked;
  const int index = device.has_index() ? device.index() : 0;
  if (index >= kMaxDevices) return nullptr;
  const auto& module = cuda_module();
  std::call_once(checked[index].flag, [&] {
    const std::string fault =
        module.ok() ? (*module)->kernels_fault(index) : module.error().message;
    checked[index].usable = fault.empty();
    if (!fault.empty()) log::warn("cuda:{} runs without lorry's kernels: {}", index, fault);
  });
  return checked[index].usable ? *module : nullptr;
}

}  // namespace lorry::ops
