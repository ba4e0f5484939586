// The kernels of rope.h against its form in libtorch's ops, and in float64.
#include "ops/rope.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ops/implementations_test.h"

#ifdef LORRY_CUDA_ON_HOST
#include "ops/cuda_module_parts.h"
#include "ops/rope_cuda.cu"  // the kernels, compiled for the host

extern "C" const unsigned char lorry_fatbin_rope[1] = {};
#endif

namespace lorry::ops {
namespace {

const RopeImplementation* on_host() {
#ifdef LORRY_CUDA_ON_HOST
  return &kCudaRope;
#else
  return nullptr;
#endif
}

class RopeKernels : public testing::TestWithParam<KernelParam> {
 protected:
  void SetUp() override {
    std::string reason;
    target_ = cuda_target(std::get<0>(GetParam()), &CudaModule::rope, on_host(), reason);
    if (!target_) GTEST_SKIP() << reason;
    at::manual_seed(1);
  }
  at::ScalarType dtype() const { return std::get<1>(GetParam()); }
  at::Tensor random(at::IntArrayRef shape) const {
    return at::randn(shape).to(target_->device, dtype());
  }
  void angles(int64_t tokens, int64_t half) {
    const at::Tensor angle = at::randn({tokens, 1, half}) * 3;
    cos_ = angle.cos().to(target_->device, dtype());
    sin_ = angle.sin().to(target_->device, dtype());
  }
  void turn(const at::Tensor& x, const at::Tensor& out, float sign = 1) const {
    target_->implementation.rotate(x, out, cos_, sin_, sign);
  }
  /// In float64 of the rounded angles; each result is a sum of two products, rounded three times.
  void expect_turned(const at::Tensor& got, const at::Tensor& x, double sign = 1) const {
    const auto wide = [](const at::Tensor& t) { return t.to(at::kCPU, at::kDouble); };
    const int64_t half = cos_.size(-1);
    const at::Tensor c = wide(cos_), s = sign * wide(sin_), in = wide(x);
    const at::Tensor a = in.narrow(2, 0, half), b = in.narrow(2, half, half);
    const at::Tensor want =
        at::cat({a * c - b * s, b * c + a * s, in.narrow(2, 2 * half, in.size(2) - 2 * half)}, 2);
    const at::Tensor sizes = at::cat({(a * c).abs() + (b * s).abs(), (b * c).abs() + (a * s).abs(),
                                      want.narrow(2, 2 * half, in.size(2) - 2 * half).abs()},
                                     2);
    const at::Tensor off = (wide(got) - want).abs() / (sizes + 1e-30);
    EXPECT_LE(off.max().item<double>(), 2.1 * half_unit(dtype())) << x.sizes();
  }
  std::optional<Target<RopeImplementation>> target_;
  at::Tensor cos_, sin_;
};

TEST_P(RopeKernels, TurnHeadsOfAnySize) {
  for (const auto& [d, half] : {std::pair<int64_t, int64_t>{128, 64}, {64, 16}, {20, 8}, {7, 3}}) {
    angles(11, half);
    const at::Tensor x = random({11, 3, d}), out = at::empty_like(x);
    turn(x, out);
    expect_turned(out, x);
    turn(x, out, -1);
    expect_turned(out, x, -1);
  }
}

TEST_P(RopeKernels, TurnInPlaceTheFirstHeadsOfRows) {
  constexpr int64_t kTokens = 70, kHeads = 6, kAll = 8, kDim = 32;
  angles(kTokens, 12);
  const at::Tensor joined = random({kTokens, kAll * kDim}), before = joined.clone();
  const auto heads = [](const at::Tensor& t) { return t.unflatten(1, {kAll, kDim}); };
  const at::Tensor turning = heads(joined).narrow(1, 0, kHeads);
  turn(turning, turning);
  expect_turned(turning, heads(before).narrow(1, 0, kHeads));
  EXPECT_TRUE(
      joined.narrow(1, kHeads * kDim, 2 * kDim).equal(before.narrow(1, kHeads * kDim, 2 * kDim)));
}

TEST_P(RopeKernels, TakeMemoryThatIsNotAligned) {
  angles(5, 16);
  const at::Tensor x = random({5 * 2 * 32 + 1}).slice(0, 1).view({5, 2, 32});
  const at::Tensor out = at::empty({5, 2, 32}, x.options()), again = at::empty_like(out);
  turn(x, out);
  turn(x.clone(), again);
  EXPECT_TRUE(out.equal(again));
}

TEST_P(RopeKernels, TakeNoRows) {
  angles(0, 16);
  const at::Tensor x = random({0, 2, 32});
  turn(x, x);
}

INSTANTIATE_TEST_SUITE_P(, RopeKernels, kernel_params(), kernel_param_name);

}  // namespace
}  // namespace lorry::ops
