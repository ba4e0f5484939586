// The kernels of norm_rope.h in float64's numbers, and beside the operations that they replace.
#include "ops/norm_rope.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/implementations_test.h"
#include "ops/rope.h"

#ifdef LORRY_CUDA_ON_HOST
#include "ops/cuda_module_parts.h"
#include "ops/norm_rope_cuda.cu"  // the kernels, compiled for the host

extern "C" const unsigned char lorry_fatbin_norm_rope[1] = {};
#endif

namespace lorry::ops {
namespace {

const NormRopeImplementation* on_host() {
#ifdef LORRY_CUDA_ON_HOST
  return &kCudaNormRope;
#else
  return nullptr;
#endif
}

struct Inputs {
  at::Tensor joined, cos, sin;
  HeadNorms norms;
};

/// By the operations of their own; differentiable, in any dtype.
at::Tensor composed(const Inputs& in) {
  const HeadNorms& n = in.norms;
  const at::Tensor heads = in.joined.unflatten(1, {-1, n.head_dim});
  const auto part = [&](int64_t first, int64_t count, const at::Tensor& weight) {
    const at::Tensor x = heads.narrow(1, first, count);
    const at::Tensor factor = n.kind == RmsNormKind::kOnePlusWeight ? weight + 1 : weight;
    const at::Tensor normed = x * at::rsqrt(x.pow(2).mean(-1, true) + n.eps) * factor;
    return rotate(normed, in.cos, in.sin);
  };
  return at::cat({part(0, n.heads, n.q_weight), part(n.heads, n.kv_heads, n.k_weight),
                  heads.narrow(1, n.heads + n.kv_heads, n.kv_heads)},
                 1)
      .flatten(1);
}

class NormRopeKernels : public testing::TestWithParam<KernelParam> {
 protected:
  void SetUp() override {
    std::string reason;
    target_ = cuda_target(std::get<0>(GetParam()), &CudaModule::norm_rope, on_host(), reason);
    if (!target_) GTEST_SKIP() << reason;
    at::manual_seed(1);
  }
  at::ScalarType dtype() const { return std::get<1>(GetParam()); }
  at::Tensor random(at::IntArrayRef shape) const {
    return at::randn(shape).to(target_->device, dtype());
  }
  Inputs random_inputs(int64_t tokens, const HeadNorms& sizes, int64_t half) const {
    HeadNorms norms = sizes;
    norms.q_weight = random({sizes.head_dim});
    norms.k_weight = random({sizes.head_dim});
    const at::Tensor angle = at::randn({tokens, 1, half}) * 3;
    const auto here = [&](const at::Tensor& x) { return x.to(target_->device, dtype()); };
    return {2 * random({tokens, (sizes.heads + 2 * sizes.kv_heads) * sizes.head_dim}),
            here(angle.cos()), here(angle.sin()), norms};
  }
  static Inputs widened(const Inputs& in) {
    const auto wide = [](const at::Tensor& x) { return x.to(at::kCPU, at::kDouble); };
    Inputs out{wide(in.joined), wide(in.cos), wide(in.sin), in.norms};
    out.norms.q_weight = wide(in.norms.q_weight);
    out.norms.k_weight = wide(in.norms.k_weight);
    return out;
  }
  void expect_near(const at::Tensor& got, const at::Tensor& want, const char* what) const {
    const double size = want.pow(2).mean().sqrt().item<double>();
    const at::Tensor off = (got.to(at::kCPU, at::kDouble) - want).abs() / (want.abs() + size);
    EXPECT_LE(off.max().item<double>() / half_unit(dtype()), dtype() == at::kFloat ? 32 : 6)
        << what;
  }
  void check(int64_t tokens, const HeadNorms& sizes, int64_t half) const {
    SCOPED_TRACE(testing::Message() << "head size " << sizes.head_dim << ", half " << half);
    Inputs in = random_inputs(tokens, sizes, half), wide = widened(in);
    ASSERT_TRUE(target_->implementation.takes(in.joined, in.norms, in.cos));
    in.joined.requires_grad_(true);
    wide.joined.requires_grad_(true);
    const at::Tensor got =
        norm_rope_by(target_->implementation, in.joined, in.norms, in.cos, in.sin);
    const at::Tensor want = composed(wide), seed = random(in.joined.sizes());
    expect_near(got.detach(), want.detach(), "result");
    const auto grads = torch::autograd::grad({got}, {in.joined}, {seed});
    const auto wants =
        torch::autograd::grad({want}, {wide.joined}, {seed.to(at::kCPU, at::kDouble)});
    expect_near(grads[0], wants[0], "gradient");
    const int64_t values = sizes.kv_heads * sizes.head_dim, first = got.size(1) - values;
    EXPECT_TRUE(got.narrow(1, first, values).equal(in.joined.narrow(1, first, values)));
  }
  std::optional<Target<NormRopeImplementation>> target_;
};

TEST_P(NormRopeKernels, NormaliseAndTurnHeadsOfEverySize) {
  check(5, {4, 2, 128}, 64);
  check(3, {2, 1, 64}, 32);
  check(2, {2, 1, 16}, 8);
  check(3, {3, 3, 96}, 48);
  if (dtype() != at::kFloat) check(3, {2, 1, 256}, 128);
}

TEST_P(NormRopeKernels, LeaveTheRestOfAHeadUnturned) { check(7, {4, 2, 64}, 16); }

TEST_P(NormRopeKernels, FollowEveryKindOfWeight) {
  for (const auto kind : {RmsNormKind::kWideWeight, RmsNormKind::kOnePlusWeight}) {
    check(4, {2, 2, 32, {}, {}, 1e-5, kind}, 16);
  }
}

TEST_P(NormRopeKernels, TakeNoSizesThatFillNoVector) {
  const Inputs odd = random_inputs(2, {1, 1, 20}, 10), large = random_inputs(2, {1, 1, 1024}, 512);
  EXPECT_FALSE(target_->implementation.takes(odd.joined, odd.norms, odd.cos));
  EXPECT_FALSE(target_->implementation.takes(large.joined, large.norms, large.cos));
}

INSTANTIATE_TEST_SUITE_P(, NormRopeKernels, kernel_params(), kernel_param_name);

TEST(NormRope, OnACpuThereIsNoKernel) {
  const at::Tensor weight = at::ones({16}), angle = at::zeros({2, 1, 8});
  EXPECT_FALSE(norm_rope(at::randn({2, 64}), {2, 1, 16, weight, weight}, angle, angle).defined());
}

}  // namespace
}  // namespace lorry::ops
