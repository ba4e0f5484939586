// liblorry_cuda.so as the engine sees it: what needs libtorch_cuda's symbols or a CUDA kernel of
// ours, behind one table of functions. The engine itself links libtorch_cpu alone.
//
// The module exports `lorry_cuda_module` and nothing else. Both sides are built from one tree; the
// loader compares versions and refuses another. Where there is no module (a build without nvcc, no
// libtorch_cuda, a driver too old for the kernels) every operation has a form in libtorch's own
// ops.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "ops/cross_entropy.h"
#include "ops/dequantize.h"
#include "ops/gate.h"
#include "ops/norm_rope.h"
#include "ops/paged_attention.h"
#include "ops/residual_rms_norm.h"
#include "ops/rope.h"

namespace lorry::ops {

/// A captured graph. Owned by whoever called `create`.
struct CudaGraph;

/// Memory that the graphs of one pool share; sound if they are replayed in the order of capture.
using CudaGraphPool = std::pair<std::uint64_t, std::uint64_t>;

/// Work of a stream, recorded once and launched again as a whole. Tensors that a capture creates
/// keep their addresses: inputs are copied into tensors made before it, outputs read from those
/// made in it. Throws what libtorch throws. A graph is used by one thread.
struct CudaGraphFunctions {
  CudaGraphPool (*new_pool)();
  CudaGraph* (*create)(int device);
  /// Makes a side stream, which waits for the current one, current on the graph's device, and
  /// begins to record it. Until `end` on the same thread, nothing may synchronise with the device.
  void (*begin)(CudaGraph*, CudaGraphPool);
  /// Ends the recording and makes the former stream current again.
  void (*end)(CudaGraph*);
  /// Launches the graph on the current stream of its device.
  void (*replay)(CudaGraph*);
  /// Also ends a capture that `end` never did.
  void (*destroy)(CudaGraph*);
};

// Not in the table: process groups. ProcessGroupNCCL.hpp needs nccl.h, which no small package has
// (docs/dependencies.md, "What was weighed and left out").
struct CudaModule {
  const char* version;          ///< lorry::kVersion of its build
  std::uint64_t torch_version;  ///< TORCH_ABI_VERSION of the libtorch headers of its build
  std::uint64_t size;           ///< sizeof(CudaModule) of its build

  /// Loads the kernels on a device; empty, or why they cannot be launched there.
  std::string (*kernels_fault)(int device);
  /// The cudaStream_t on which libtorch puts the calling thread's work on a device.
  void* (*current_stream)(int device);
  CudaGraphFunctions graph;
  /// Every tensor, each on a device of its own, becomes the sum of all (NCCL), on the devices'
  /// current streams of the calling thread. Throws what libtorch throws.
  void (*sum_over_devices)(std::vector<at::Tensor>&);
  RmsNormImplementation residual_rms_norm;
  RopeImplementation rope;
  GateImplementation gate;
  CrossEntropyImplementation cross_entropy;
  DequantizeImplementation dequantize;
  NormRopeImplementation norm_rope;
  PagedAttentionImplementation paged_attention;
};

/// The module in a file. Fails if it does not load (the loader's reason) or is of another build.
Result<const CudaModule*> open_cuda_module(const std::string& path);

/// The module beside the library that holds this code, loaded once; call it after libtorch_cuda has
/// been loaded. Any thread.
const Result<const CudaModule*>& cuda_module();

/// The module where its kernels run on `device`, else null: then operations take their form in
/// libtorch's ops. The first call for a CUDA device loads the kernels and, where that fails, warns
/// with the reason. Any thread.
const CudaModule* cuda_kernels(at::Device device);

}  // namespace lorry::ops

/// What liblorry_cuda.so exports (cuda_module_entry.cc).
extern "C" const lorry::ops::CudaModule* lorry_cuda_module();
