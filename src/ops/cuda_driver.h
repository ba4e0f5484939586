// How liblorry_cuda.so loads and launches its kernels: fatbins that are embedded in it, through the
// CUDA driver's own interface, reached with dlopen.
//
// Not through the runtime library (libcudart): the module would name one of its major versions, or
// carry a second one beside libtorch's, and its absence or an old driver would be a failure to
// load. So one module serves the CUDA 12 and CUDA 13 builds of libtorch alike, and a driver that
// cannot load the code (it wants 580 or newer) is a sentence and a slower run.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace lorry::ops {

/// All of a fatbin's kernels that are used, in the order of their names.
///
/// Constructed once for each fatbin; the code is loaded into every device that launches it. Throws
/// std::runtime_error with a sentence if there is no driver or it does not take the fatbin.
class CudaKernels {
 public:
  CudaKernels(const void* fatbin, const std::vector<std::string>& names);

  /// Loads all kernels on a device, so that no launch has to (which a capture would not allow).
  /// Throws as the constructor does.
  void load(int device) const;

  struct Shape {
    unsigned blocks = 1, threads_x = 1, threads_y = 1;
  };
  /// Launches a kernel on the current stream of a device. Its only parameter is the structure that
  /// `arguments` points to, which is copied.
  void launch(size_t kernel, int device, Shape shape, void* arguments) const;

 private:
  std::vector<void*> kernels_;  ///< CUkernel
};

/// Streaming multiprocessors of a device.
int multiprocessors(int device);

}  // namespace lorry::ops
