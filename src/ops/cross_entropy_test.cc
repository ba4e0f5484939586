// The kernels of cross_entropy.h in float64's numbers, and the transform of logits in every form.
#include "ops/cross_entropy.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/implementations_test.h"

#ifdef LORRY_CUDA_ON_HOST
#include "ops/cross_entropy_cuda.cu"  // the kernels, compiled for the host
#include "ops/cuda_module_parts.h"

extern "C" const unsigned char lorry_fatbin_cross_entropy[1] = {};
#endif

namespace lorry::ops {
namespace {

const CrossEntropyImplementation* on_host() {
#ifdef LORRY_CUDA_ON_HOST
  return &kCudaCrossEntropy;
#else
  return nullptr;
#endif
}

at::Tensor wide(const at::Tensor& x) { return x.to(at::kCPU, at::kDouble); }

struct Exact {
  double loss;
  at::Tensor gradient;
};

/// Without the roundings of the transform.
Exact exact(const at::Tensor& x, const at::Tensor& targets, double scale,
            const LogitTransform& transform) {
  const at::Tensor leaf = wide(x).clone().set_requires_grad(true);
  at::Tensor z = leaf * transform.scale;
  if (transform.softcap > 0) z = at::tanh(z / transform.softcap) * transform.softcap;
  const at::Tensor loss = at::cross_entropy_loss(z, targets.cpu(), {}, at::Reduction::Sum);
  return {loss.item<double>(), torch::autograd::grad({loss * scale}, {leaf})[0]};
}

class LossKernels : public testing::TestWithParam<KernelParam> {
 protected:
  void SetUp() override {
    std::string reason;
    target_ = cuda_target(std::get<0>(GetParam()), &CudaModule::cross_entropy, on_host(), reason);
    if (!target_) GTEST_SKIP() << reason;
    at::manual_seed(1);
  }
  at::ScalarType dtype() const { return std::get<1>(GetParam()); }
  at::Tensor random(at::IntArrayRef shape) const {
    return (4 * at::randn(shape)).to(target_->device, dtype());
  }
  at::Tensor random_targets(int64_t rows, int64_t vocab) const {
    return at::randint(0, vocab, {rows}, at::kLong).to(target_->device);
  }
  double turn(const at::Tensor& logits, const at::Tensor& targets, double scale,
              const LogitTransform& transform = {}) const {
    return wide(target_->implementation.cross_entropy(logits, targets, scale, transform))
        .item<double>();
  }
  void check(const at::Tensor& logits, const LogitTransform& transform, double tolerance) const {
    const at::Tensor targets = random_targets(logits.size(0), logits.size(1));
    const Exact want = exact(logits, targets, 0.25, transform);
    const double loss = turn(logits, targets, 0.25, transform);
    EXPECT_NEAR(loss, want.loss, tolerance * std::abs(want.loss)) << logits.sizes();
    // Of each number's own size: a probability may be tiny. Float32's powers err by the size of
    // their exponents.
    const double near = std::max(1.01 * half_unit(dtype()), 4e-6) + tolerance;
    const at::Tensor off = (wide(logits) - want.gradient).abs();
    const at::Tensor allowed = near * want.gradient.abs() + (dtype() == at::kHalf ? 6e-8 : 1e-12);
    EXPECT_TRUE((off <= allowed + tolerance * 0.25).all().item<bool>()) << logits.sizes();
  }
  std::optional<Target<CrossEntropyImplementation>> target_;
};

TEST_P(LossKernels, AreExactForVocabulariesOfAnySize) {
  for (const int64_t vocab : {1, 2, 7, 64, 257, 3001, 12000}) check(random({3, vocab}), {}, 2e-6);
}

TEST_P(LossKernels, AreExactForTheLargestVocabulary) { check(random({1, 262144}), {}, 5e-6); }

TEST_P(LossKernels, TakeRowsWithOtherNumbersBetweenThem) {
  const at::Tensor memory = random({5, 3010}), before = memory.clone();
  check(memory.narrow(1, 2, 3001), {}, 2e-6);
  EXPECT_TRUE(memory.narrow(1, 0, 2).equal(before.narrow(1, 0, 2)));
  EXPECT_TRUE(memory.narrow(1, 3003, 7).equal(before.narrow(1, 3003, 7)));
}

TEST_P(LossKernels, ScaleAndCapLogits) {
  // In 16 bits the transform's own roundings are of the size of a logit's.
  const double tolerance = dtype() == at::kFloat ? 4e-6 : dtype() == at::kHalf ? 0.01 : 0.08;
  check(random({4, 600}), {0.125, 0}, tolerance);
  check(random({4, 600}), {1, 30}, tolerance);
  check(random({4, 601}), {2, 5}, tolerance);
}

TEST_P(LossKernels, IgnoreLogitsOfMinusInfinity) {
  const at::Tensor logits = random({2, 5000});
  logits[0].narrow(0, 8, 4900).fill_(-INFINITY);
  const at::Tensor targets = at::full({2}, 3, at::kLong).to(target_->device);
  const Exact want = exact(logits, targets, 1, {});
  EXPECT_NEAR(turn(logits, targets, 1), want.loss, 2e-6 * want.loss);
  EXPECT_EQ(wide(logits[0].narrow(0, 8, 4900)).abs().max().item<double>(), 0);
}

TEST_P(LossKernels, SayWhereALogitIsNoNumber) {
  for (const double broken : {NAN, INFINITY}) {
    const at::Tensor logits = random({2, 400});
    logits[1][399].fill_(broken);
    EXPECT_FALSE(std::isfinite(turn(logits, random_targets(2, 300), 1)));
  }
}

TEST_P(LossKernels, TakeNoRows) { EXPECT_EQ(turn(random({0, 100}), random_targets(0, 100), 1), 0); }

INSTANTIATE_TEST_SUITE_P(, LossKernels, kernel_params(), kernel_param_name);

TEST(CrossEntropy, OnACpuTheGradientIsThatOfTheProductBeforeTheTransform) {
  at::manual_seed(2);
  at::Tensor logits = 3 * at::randn({6, 200});
  const at::Tensor targets = at::randint(0, 200, {6}, at::kLong);
  const Exact want = exact(logits, targets, 0.5, {1.5, 4});
  EXPECT_NEAR(cross_entropy_(logits, targets, 0.5, {1.5, 4}).item<double>(), want.loss, 1e-4);
  EXPECT_TRUE(at::allclose(wide(logits), want.gradient, 1e-4, 1e-6));
}

}  // namespace
}  // namespace lorry::ops
