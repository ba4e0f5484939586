// Loading of liblorry_cuda.so, and on a GPU what its table does beside the kernels.
//
// The module needs libtorch_cuda with all that it links; tests/test_cuda.py runs these tests beside
// a complete one.
#include "ops/cuda_module.h"

#include <ATen/ATen.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>

#include "base/version.h"
#include "ops/device.h"

namespace lorry::ops {
namespace {

namespace fs = std::filesystem;

/// A library beside this test that exports a table like the module's, made by wrong_module.cc.
std::string beside(const std::string& name) {
  return (fs::read_symlink("/proc/self/exe").parent_path() / name).string();
}

TEST(CudaModule, SaysThatThereIsNone) {
  const auto module = open_cuda_module("/nonexistent/liblorry_cuda.so");
  ASSERT_FALSE(module.ok());
  EXPECT_EQ(module.error().message,
            "/nonexistent/liblorry_cuda.so is not there: lorry was built without CUDA kernels");
}

TEST(CudaModule, RefusesAFileThatIsNoLibrary) {
  const fs::path path = fs::path(testing::TempDir()) / "liblorry_cuda.so";
  std::ofstream(path) << "no library";
  const auto module = open_cuda_module(path.string());
  fs::remove(path);
  ASSERT_FALSE(module.ok());
  EXPECT_NE(module.error().message.find("does not load"), std::string::npos);
}

TEST(CudaModule, RefusesAnotherLibrary) {
  const auto module = open_cuda_module(beside("liblorry_no_module.so"));
  ASSERT_FALSE(module.ok());
  EXPECT_NE(module.error().message.find("is not lorry's CUDA module"), std::string::npos)
      << module.error().message;
}

TEST(CudaModule, RefusesTheTableOfAnotherBuild) {
  for (const char* name : {"version", "torch", "size"}) {
    const auto module = open_cuda_module(beside(std::string("liblorry_wrong_") + name + ".so"));
    ASSERT_FALSE(module.ok()) << name;
    EXPECT_NE(module.error().message.find("build both again"), std::string::npos)
        << module.error().message;
  }
}

TEST(CudaModule, AcpuNeedsNone) { EXPECT_EQ(cuda_kernels(at::kCPU), nullptr); }

/// What resolve_device loads; the reason why a module cannot be loaded beside it, if so.
std::string libtorch_cuda_fault() {
  (void)resolve_device("cuda");
  return dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD) == nullptr
             ? "libtorch_cuda does not load here"
             : "";
}

TEST(CudaModule, LoadsBesideLibtorchCuda) {
  if (const auto fault = libtorch_cuda_fault(); !fault.empty()) GTEST_SKIP() << fault;
  const std::string path = beside("liblorry_cuda.so");
  if (!fs::exists(path)) GTEST_SKIP() << "built without CUDA kernels";
  const auto& module = cuda_module();
  ASSERT_TRUE(module.ok()) << module.error().message;
  EXPECT_STREQ((*module)->version, kVersion);
  EXPECT_NE((*module)->residual_rms_norm.forward, nullptr);
}

TEST(CudaModule, SaysWhyItsKernelsDoNotRun) {
  if (const auto fault = libtorch_cuda_fault(); !fault.empty()) GTEST_SKIP() << fault;
  if (!cuda_module().ok()) GTEST_SKIP() << cuda_module().error().message;
  if (at::hasCUDA() && resolve_device("cuda").ok()) GTEST_SKIP() << "there is a GPU";
  const std::string fault = (*cuda_module())->kernels_fault(0);
  EXPECT_NE(fault.find("CUDA"), std::string::npos) << fault;
  EXPECT_EQ(cuda_kernels(at::Device(at::kCUDA, 0)), nullptr);
}

class OnGpu : public testing::Test {
 protected:
  void SetUp() override {
    const auto device = resolve_device("cuda");
    if (!device.ok()) GTEST_SKIP() << device.error().message;
    device_ = *device;
    module_ = cuda_kernels(device_);
    ASSERT_NE(module_, nullptr) << "there is a GPU, but the kernels do not run on it";
  }
  at::Device device_ = at::kCPU;
  const CudaModule* module_ = nullptr;
};

TEST_F(OnGpu, AGraphDoesAgainWhatItRecorded) {
  const auto& graph = module_->graph;
  const std::unique_ptr<CudaGraph, void (*)(CudaGraph*)> held(graph.create(device_.index()),
                                                              graph.destroy);
  const at::Tensor weight = at::ones({64}, at::TensorOptions(device_));
  const at::Tensor x = at::zeros({8, 64}, weight.options());
  void* const stream = module_->current_stream(device_.index());
  graph.begin(held.get(), graph.new_pool());
  EXPECT_NE(module_->current_stream(device_.index()), stream);
  const at::Tensor out = residual_rms_norm(x, x, weight, 1e-5).normed * 2;
  graph.end(held.get());
  EXPECT_EQ(module_->current_stream(device_.index()), stream);
  for (const double value : {1.0, -3.0}) {
    x.fill_(value);
    graph.replay(held.get());
    EXPECT_TRUE(at::allclose(out, at::full_like(out, value > 0 ? 2.0 : -2.0), 1e-4, 1e-4));
  }
}

TEST_F(OnGpu, AnAbandonedCaptureLeavesTheStreamAsItWas) {
  const auto& graph = module_->graph;
  void* const stream = module_->current_stream(device_.index());
  CudaGraph* const held = graph.create(device_.index());
  graph.begin(held, graph.new_pool());
  graph.destroy(held);
  EXPECT_EQ(module_->current_stream(device_.index()), stream);
  EXPECT_EQ(at::ones({2}, at::TensorOptions(device_)).sum().item<float>(), 2.0f);
}

}  // namespace
}  // namespace lorry::ops
