// Graphs of cuda_module.h over at::cuda::CUDAGraph. Part of liblorry_cuda.so.
//
// Guards and events are libtorch's generic ones: those of c10/cuda call the CUDA runtime inline,
// and the module must not name it (cuda_driver.h).
#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <optional>

#include "ops/cuda_module_parts.h"

namespace lorry::ops {

struct CudaGraph {
  explicit CudaGraph(int index) : device(static_cast<c10::DeviceIndex>(index)) {}

  c10::DeviceIndex device;
  at::cuda::CUDAGraph graph;
  /// Set while the graph records: the side stream is current as long as it lives.
  std::optional<c10::StreamGuard> recording;
};

namespace {

CudaGraphPool new_pool() { return at::cuda::graph_pool_handle(); }

CudaGraph* create(int device) { return new CudaGraph(device); }

/// What was queued before must be done before the graph's own work would be; a capture cannot wait
/// for it, the side stream before the capture can.
void wait_for(const c10::cuda::CUDAStream& earlier, const c10::cuda::CUDAStream& later) {
  c10::Event done(c10::DeviceType::CUDA);
  done.record(earlier.unwrap());
  done.block(later.unwrap());
}

void begin(CudaGraph* graph, CudaGraphPool pool) {
  TORCH_CHECK(!graph->recording, "the CUDA graph is being recorded already");
  const auto current = c10::cuda::getCurrentCUDAStream(graph->device);
  const auto side = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, graph->device);
  wait_for(current, side);
  graph->recording.emplace(side.unwrap());
  try {
    // Other threads may allocate and copy meanwhile: only this one's calls are restricted.
    graph->graph.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
  } catch (...) {
    graph->recording.reset();
    throw;
  }
}

void end(CudaGraph* graph) {
  TORCH_CHECK(graph->recording, "the CUDA graph is not being recorded");
  try {
    graph->graph.capture_end();
  } catch (...) {
    graph->recording.reset();
    throw;
  }
  graph->recording.reset();
}

void replay(CudaGraph* graph) {
  const c10::DeviceGuard guard(c10::Device(c10::kCUDA, graph->device));
  graph->graph.replay();
}

void destroy(CudaGraph* graph) {
  if (graph == nullptr) return;
  try {
    if (graph->recording) end(graph);
  } catch (const std::exception&) {
    // The capture was broken by what made its owner give up; there is nothing left to end.
  }
  delete graph;
}

}  // namespace

const CudaGraphFunctions kCudaGraph = {&new_pool, &create, &begin, &end, &replay, &destroy};

}  // namespace lorry::ops
