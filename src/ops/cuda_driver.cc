#include "ops/cuda_driver.h"

#include <c10/cuda/CUDAStream.h>
#include <cuda.h>
#include <dlfcn.h>

#include <array>
#include <mutex>
#include <stdexcept>

namespace lorry::ops {
namespace {

constexpr int kMaxDevices = 64;

/// The driver's functions that are used here, of CUDA 12.0 or newer.
struct Driver {
  decltype(&cuInit) init;
  decltype(&cuGetErrorString) error_string;
  decltype(&cuDeviceGet) device;
  decltype(&cuDeviceGetAttribute) attribute;
  decltype(&cuDevicePrimaryCtxRetain) retain;
  decltype(&cuCtxGetCurrent) current;
  decltype(&cuCtxPushCurrent) push;
  decltype(&cuCtxPopCurrent) pop;
  decltype(&cuLibraryLoadData) load;
  decltype(&cuLibraryGetKernel) kernel;
  decltype(&cuKernelGetFunction) function;
  decltype(&cuLaunchKernel) launch;
};

template <typename Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) {
    throw std::runtime_error(std::string("the CUDA driver is too old: it has no ") + name);
  }
}

Driver open_driver() {
  void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error("no CUDA driver (libcuda.so.1) is installed");
  Driver driver{};
  find(library, "cuInit", driver.init);
  find(library, "cuGetErrorString", driver.error_string);
  find(library, "cuDeviceGet", driver.device);
  find(library, "cuDeviceGetAttribute", driver.attribute);
  find(library, "cuDevicePrimaryCtxRetain", driver.retain);
  find(library, "cuCtxGetCurrent", driver.current);
  find(library, "cuCtxPushCurrent_v2", driver.push);
  find(library, "cuCtxPopCurrent_v2", driver.pop);
  find(library, "cuLibraryLoadData", driver.load);
  find(library, "cuLibraryGetKernel", driver.kernel);
  find(library, "cuKernelGetFunction", driver.function);
  find(library, "cuLaunchKernel", driver.launch);
  return driver;
}

const Driver& driver() {
  static const Driver kDriver = open_driver();
  return kDriver;
}

void check(CUresult result, const char* what) {
  if (result == CUDA_SUCCESS) return;
  const char* words = nullptr;
  driver().error_string(result, &words);
  throw std::runtime_error(std::string(what) + ": " + (words ? words : "unknown CUDA error"));
}

CUdevice device_handle(int index) {
  CUdevice handle = 0;
  check(driver().init(0), "the CUDA driver does not start");
  check(driver().device(&handle, index), "no such CUDA device");
  return handle;
}

/// The context that libtorch works in on a device, kept until the program ends.
CUcontext primary_context(int index) {
  struct Slot {
    std::once_flag flag;
    CUcontext context = nullptr;
  };
  static std::array<Slot, kMaxDevices> slots;
  Slot& slot = slots.at(index);
  std::call_once(slot.flag, [&] {
    check(driver().retain(&slot.context, device_handle(index)), "no CUDA context");
  });
  return slot.context;
}

/// Makes a device's context current while it lives: the driver, unlike the runtime, does not do it
/// by itself, and threads of libtorch's backward pass may have none yet.
class ContextGuard {
 public:
  explicit ContextGuard(int device) {
    CUcontext current = nullptr;
    const CUcontext wanted = primary_context(device);
    check(driver().current(&current), "no CUDA context");
    if (current == wanted) return;
    check(driver().push(wanted), "no CUDA context");
    pushed_ = true;
  }
  ~ContextGuard() {
    CUcontext context = nullptr;
    if (pushed_) driver().pop(&context);
  }
  ContextGuard(const ContextGuard&) = delete;
  ContextGuard& operator=(const ContextGuard&) = delete;

 private:
  bool pushed_ = false;
};

}  // namespace

CudaKernels::CudaKernels(const void* fatbin, const std::vector<std::string>& names) {
  check(driver().init(0), "the CUDA driver does not start");
  CUlibrary library = nullptr;
  check(driver().load(&library, fatbin, nullptr, nullptr, 0, nullptr, nullptr, 0),
        "the CUDA driver does not take the kernels (it must be 580 or newer)");
  for (const auto& name : names) {
    CUkernel kernel = nullptr;
    check(driver().kernel(&kernel, library, name.c_str()), name.c_str());
    kernels_.push_back(kernel);
  }
}

void CudaKernels::load(int device) const {
  const ContextGuard guard(device);
  for (void* const kernel : kernels_) {
    CUfunction function = nullptr;
    check(driver().function(&function, static_cast<CUkernel>(kernel)),
          "the kernels do not load on this device");
  }
}

void CudaKernels::launch(size_t kernel, int device, Shape shape, void* arguments) const {
  const ContextGuard guard(device);
  const auto stream = c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device));
  void* parameters[] = {arguments};
  // A CUkernel stands for the function of whatever context is current.
  check(driver().launch(static_cast<CUfunction>(kernels_.at(kernel)), shape.blocks, 1, 1,
                        shape.threads_x, shape.threads_y, 1, /*sharedMemBytes=*/0, stream.stream(),
                        parameters, nullptr),
        "a kernel could not be launched");
}

int multiprocessors(int device) {
  int count = 0;
  check(driver().attribute(&count, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device_handle(device)),
        "no properties of the CUDA device");
  return count;
}

}  // namespace lorry::ops
