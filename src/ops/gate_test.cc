// The kernels of gate.h in float64's numbers; ops_test.cc and training_ops_test.cc test its forms
// in libtorch's ops.
#include "ops/gate.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/implementations_test.h"

#ifdef LORRY_CUDA_ON_HOST
#include "ops/cuda_module_parts.h"
#include "ops/gate_cuda.cu"  // the kernels, compiled for the host

extern "C" const unsigned char lorry_fatbin_gate[1] = {};
#endif

namespace lorry::ops {
namespace {

const GateImplementation* on_host() {
#ifdef LORRY_CUDA_ON_HOST
  return &kCudaGate;
#else
  return nullptr;
#endif
}

class GateKernels : public testing::TestWithParam<KernelParam> {
 protected:
  void SetUp() override {
    std::string reason;
    target_ = cuda_target(std::get<0>(GetParam()), &CudaModule::gate, on_host(), reason);
    if (!target_) GTEST_SKIP() << reason;
    at::manual_seed(1);
  }
  at::ScalarType dtype() const { return std::get<1>(GetParam()); }
  at::Tensor random(at::IntArrayRef shape) const {
    return (2 * at::randn(shape)).to(target_->device, dtype());
  }
  static at::Tensor leaf(const at::Tensor& x) {
    return x.to(at::kCPU, at::kDouble).clone().set_requires_grad(true);
  }
  /// Of a few roundings, relative to the number and to the size of what it is made of.
  void expect_near(const at::Tensor& got, const at::Tensor& want, const char* what) const {
    if (want.numel() == 0) return;
    const double size = want.abs().mean().item<double>();
    const at::Tensor off = (got.to(at::kCPU, at::kDouble) - want).abs() / (want.abs() + size);
    const double roundings = off.max().item<double>() / half_unit(dtype());
    EXPECT_LE(roundings, dtype() == at::kFloat ? 16 : 4.1) << what << " " << want.sizes();
  }
  void check(const at::Tensor& gate, const at::Tensor& up, const Activation& activation) const {
    const at::Tensor wide_gate = leaf(gate), wide_up = leaf(up);
    const at::Tensor want = gated(wide_gate, wide_up, activation);
    const at::Tensor grad = random({gate.size(0), gate.size(1)});
    const auto wants =
        torch::autograd::grad({want}, {wide_gate, wide_up}, {grad.to(at::kCPU, at::kDouble)});
    expect_near(target_->implementation.forward(gate, up, activation), want.detach(), "result");
    // Side by side, as the gradient of a joined product.
    const at::Tensor joined = at::full({gate.size(0), 2 * gate.size(1)}, NAN, gate.options());
    const auto halves = joined.chunk(2, 1);
    target_->implementation.backward(grad, gate, up, activation, halves[0], halves[1]);
    expect_near(halves[0], wants[0], "gradient of the gate");
    expect_near(halves[1], wants[1], "gradient of the factor");
  }
  std::optional<Target<GateImplementation>> target_;
};

constexpr Activation kAll[] = {{Activation::Kind::kSilu},
                               {Activation::Kind::kGeluTanh},
                               {Activation::Kind::kGelu},
                               {Activation::Kind::kClampedSilu, 1.702, 1.5}};

TEST_P(GateKernels, FollowEveryActivation) {
  for (const Activation& activation : kAll) {
    SCOPED_TRACE(static_cast<int>(activation.kind));
    check(random({9, 64}), random({9, 64}), activation);
  }
}

TEST_P(GateKernels, TakeHalvesOfAJoinedProduct) {
  for (const int64_t width : {1, 7, 40, 600}) {
    const auto halves = random({21, 2 * width}).chunk(2, 1);
    check(halves[0], halves[1], kAll[0]);
  }
}

TEST_P(GateKernels, StayFiniteFarFromZero) {
  const at::Tensor far = at::tensor({-200.0, -90.0, -30.0, 30.0, 90.0, 200.0, 0.0, 1.0})
                             .to(target_->device, dtype())
                             .view({1, 8});
  for (const Activation& activation : kAll) {
    const at::Tensor ones = at::ones_like(far), d_gate = at::empty_like(far),
                     d_up = at::empty_like(far);
    target_->implementation.backward(ones, far, ones, activation, d_gate, d_up);
    EXPECT_TRUE(at::isfinite(d_gate).all().item<bool>());
    EXPECT_TRUE(at::isfinite(d_up).all().item<bool>());
  }
}

TEST_P(GateKernels, TakeNoRows) { check(random({0, 16}), random({0, 16}), kAll[0]); }

INSTANTIATE_TEST_SUITE_P(, GateKernels, kernel_params(), kernel_param_name);

}  // namespace
}  // namespace lorry::ops
