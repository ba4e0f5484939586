// Every implementation that this machine can run, against the same sums in float64.
#include "ops/residual_rms_norm.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <optional>
#include <string>
#include <tuple>

#include "ops/implementations_test.h"

#ifdef LORRY_CUDA_ON_HOST
#include "ops/cuda_module_parts.h"
#include "ops/residual_rms_norm_cuda.cu"  // the kernels, compiled for the host

extern "C" const unsigned char lorry_fatbin_residual_rms_norm[1] = {};
#endif

namespace lorry::ops {
namespace {

constexpr double kEps = 1e-5;

struct Inputs {
  at::Tensor x, residual, weight, d_sum, d_normed;
};

at::Tensor random(at::IntArrayRef shape, at::ScalarType dtype, at::Device device) {
  return at::randn(shape, at::kFloat).to(device, dtype);
}

Inputs random_inputs(at::IntArrayRef shape, at::ScalarType dtype, at::Device device) {
  at::manual_seed(1);
  const int64_t width = shape.back();
  return {3 * random(shape, dtype, device), random(shape, dtype, device),
          random({width}, dtype, device), random(shape, dtype, device),
          random(shape, dtype, device)};
}

/// Forward and both gradients.
struct Outputs {
  at::Tensor sum, normed, d_x, d_weight;
  at::Tensor d_x_terms;  ///< of the size of what d_x is a difference of; exact ones only
};

/// In float64 throughout, but for the sum, which the norm reads as rounded.
Outputs exact(const Inputs& in, bool with_residual, RmsNormKind kind) {
  at::Tensor sum = in.x.to(at::kCPU, at::kDouble);
  if (with_residual) sum = sum + in.residual.to(at::kCPU, at::kDouble);
  sum = sum.to(in.x.scalar_type()).to(at::kDouble).set_requires_grad(true);
  const at::Tensor weight = in.weight.to(at::kCPU, at::kDouble).set_requires_grad(true);
  const at::Tensor factor = kind == RmsNormKind::kOnePlusWeight ? weight + 1 : weight;
  const at::Tensor rms = at::sqrt(sum.pow(2).mean(-1, /*keepdim=*/true) + kEps);
  const at::Tensor normed = sum / rms * factor;
  const auto grads =
      torch::autograd::grad({normed}, {sum, weight}, {in.d_normed.to(at::kCPU, at::kDouble)});
  const at::Tensor d_x = with_residual ? grads[0] + in.d_sum.to(at::kCPU, at::kDouble) : grads[0];
  const at::Tensor terms = in.d_normed.to(at::kCPU, at::kDouble) * factor / rms;
  return {sum.detach(), normed.detach(), d_x, grads[1], terms.detach()};
}

Outputs run(const RmsNormImplementation& implementation, const Inputs& in, bool with_residual,
            RmsNormKind kind) {
  const at::Tensor none;
  const ResidualRmsNorm out =
      implementation.forward(in.x, with_residual ? in.residual : none, in.weight, kEps, kind);
  EXPECT_EQ(out.sum.defined(), with_residual);
  const at::Tensor sum = with_residual ? out.sum : in.x;
  const RmsNormGradients grads =
      implementation.backward(sum, in.weight, with_residual ? in.d_sum : none, in.d_normed, kEps,
                              kind, /*wants_weight=*/true);
  return {sum, out.normed, grads.x, grads.weight, {}};
}

double size_of(const at::Tensor& x) { return x.pow(2).mean().sqrt().item<double>(); }

/// The largest difference in roundings to dtype: of each number itself and one of the given size.
double roundings(const at::Tensor& got, const at::Tensor& want, double size, at::ScalarType dtype) {
  if (got.numel() == 0) return 0;
  constexpr double kTiny = 1e-30;
  const at::Tensor error =
      (got.to(at::kCPU, at::kDouble) - want).abs() / (want.abs() + size + kTiny);
  return error.max().item<double>() / half_unit(dtype);
}

void expect_close(const Outputs& got, const Outputs& want, at::ScalarType dtype) {
  // Of 16 bits, a result is rounded twice at most, a term of d_weight once more. Float32 sums of
  // thousands of numbers err by more than one rounding.
  const bool narrow = dtype != at::kFloat;
  EXPECT_LE(roundings(got.sum, want.sum, 0, dtype), 1.01);
  EXPECT_LE(roundings(got.normed, want.normed, size_of(want.normed), dtype), narrow ? 2.01 : 32);
  EXPECT_LE(roundings(got.d_x, want.d_x, size_of(want.d_x_terms), dtype), narrow ? 2.01 : 32);
  EXPECT_LE(roundings(got.d_weight, want.d_weight, size_of(want.d_weight), dtype), narrow ? 4 : 32);
  for (const at::Tensor& tensor : {got.sum, got.normed, got.d_x, got.d_weight}) {
    EXPECT_EQ(tensor.scalar_type(), dtype);
  }
}

/// Null and a reason, where this machine cannot run it.
std::optional<Target<RmsNormImplementation>> target(const std::string& name, std::string& reason) {
  using Target = Target<RmsNormImplementation>;
  if (name == "plain") return Target{kPlainRmsNorm, at::kCPU};
  if (name == "cpu") return Target{kCpuRmsNorm, at::kCPU};
#ifdef LORRY_CUDA_ON_HOST
  const RmsNormImplementation* const on_host = &kCudaRmsNorm;
#else
  const RmsNormImplementation* const on_host = nullptr;
#endif
  return cuda_target(name, &CudaModule::residual_rms_norm, on_host, reason);
}

class Implementation : public testing::TestWithParam<std::tuple<std::string, at::ScalarType>> {
 protected:
  void SetUp() override {
    std::string reason;
    target_ = target(std::get<0>(GetParam()), reason);
    if (!target_) GTEST_SKIP() << reason;
    if (std::get<0>(GetParam()) == "cpu" && dtype() == at::kHalf) {
      GTEST_SKIP() << "float16 on a CPU takes the plain form";
    }
  }
  at::ScalarType dtype() const { return std::get<1>(GetParam()); }

  void check(at::IntArrayRef shape, RmsNormKind kind = RmsNormKind::kPlain) {
    const Inputs in = random_inputs(shape, dtype(), target_->device);
    for (const bool with_residual : {true, false}) {
      SCOPED_TRACE(testing::Message() << "shape " << shape << ", residual " << with_residual
                                      << ", kind " << static_cast<int>(kind));
      expect_close(run(target_->implementation, in, with_residual, kind),
                   exact(in, with_residual, kind), dtype());
    }
  }
  std::optional<Target<RmsNormImplementation>> target_;
};

TEST_P(Implementation, IsExactForRowsOfAnySize) {
  // Narrow and wide, a multiple of 16 bytes or not.
  for (const int64_t width : {1, 2, 3, 8, 31, 33, 64, 100, 128, 255, 256, 257, 896, 1023}) {
    check({5, width});
  }
  // Past what threads keep in registers.
  for (const int64_t width : {1025, 4100, 8200}) check({5, width});
}

TEST_P(Implementation, IsExactForAnyNumberOfRows) {
  for (const int64_t rows : {1, 2, 63, 64, 65, 200}) check({rows, 128});
  check({3, 5, 72});
  check({500, 24});
  check({65, 264});
}

TEST_P(Implementation, FollowsEveryKindOfWeight) {
  for (const auto kind :
       {RmsNormKind::kPlain, RmsNormKind::kWideWeight, RmsNormKind::kOnePlusWeight}) {
    check({9, 64}, kind);
    check({3, 577}, kind);
  }
}

TEST_P(Implementation, TakesNoRows) {
  const Inputs in = random_inputs({0, 64}, dtype(), target_->device);
  const Outputs out = run(target_->implementation, in, true, RmsNormKind::kPlain);
  EXPECT_EQ(out.normed.numel(), 0);
  EXPECT_EQ(out.d_weight.abs().sum().item<double>(), 0);
}

TEST_P(Implementation, GivesTheSameBitsTwice) {
  const Inputs in = random_inputs({40, 520}, dtype(), target_->device);
  const Outputs a = run(target_->implementation, in, true, RmsNormKind::kPlain);
  const Outputs b = run(target_->implementation, in, true, RmsNormKind::kPlain);
  EXPECT_TRUE(a.normed.equal(b.normed));
  EXPECT_TRUE(a.d_x.equal(b.d_x));
  EXPECT_TRUE(a.d_weight.equal(b.d_weight));
}

/// A row is not told from another by those around it: serving and training see the same numbers.
TEST_P(Implementation, ARowDoesNotDependOnTheOthers) {
  const Inputs in = random_inputs({9, 896}, dtype(), target_->device);
  const auto& forward = target_->implementation.forward;
  const auto all = forward(in.x, in.residual, in.weight, kEps, RmsNormKind::kPlain);
  const auto one = forward(in.x.slice(0, 4, 5), in.residual.slice(0, 4, 5), in.weight, kEps,
                           RmsNormKind::kPlain);
  EXPECT_TRUE(all.normed.slice(0, 4, 5).equal(one.normed));
}

TEST_P(Implementation, TakesMemoryThatIsNotAligned) {
  const at::Device device = target_->device;
  const at::Tensor x = random({6 * 128 + 1}, dtype(), device).slice(0, 1).view({6, 128});
  const at::Tensor residual = random({6, 128}, dtype(), device);
  const at::Tensor weight = random({128}, dtype(), device);
  const auto& forward = target_->implementation.forward;
  const auto shifted = forward(x, residual, weight, kEps, RmsNormKind::kPlain);
  const auto aligned = forward(x.clone(), residual, weight, kEps, RmsNormKind::kPlain);
  EXPECT_TRUE(shifted.sum.equal(aligned.sum));
  const at::Tensor want = aligned.normed.to(at::kCPU, at::kDouble);
  EXPECT_LE(roundings(shifted.normed, want, size_of(want), dtype()), 4);
}

INSTANTIATE_TEST_SUITE_P(, Implementation,
                         testing::Combine(testing::Values("plain", "cpu", "cuda_on_host", "cuda"),
                                          testing::Values(at::kFloat, at::kBFloat16, at::kHalf)),
                         [](const auto& info) {
                           return std::get<0>(info.param) + "_" +
                                  at::toString(std::get<1>(info.param));
                         });

TEST(ResidualRmsNorm, OnACpuIsBitForBitTheSumAndRmsNorm) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto kind :
         {RmsNormKind::kPlain, RmsNormKind::kWideWeight, RmsNormKind::kOnePlusWeight}) {
      const Inputs in = random_inputs({6, 901}, dtype, at::kCPU);
      const auto out = residual_rms_norm(in.x, in.residual, in.weight, kEps, kind);
      EXPECT_TRUE(out.sum.equal(in.x + in.residual));
      EXPECT_TRUE(out.normed.equal(rms_norm(out.sum, in.weight, kEps, kind)));
    }
  }
}

TEST(ResidualRmsNorm, ItsGradientsAreThoseOfTheSeparateOperations) {
  at::manual_seed(2);
  const auto leaf = [](at::IntArrayRef shape) {
    return at::randn(shape, at::kDouble).to(at::kFloat).set_requires_grad(true);
  };
  const at::Tensor x = leaf({5, 33}), residual = leaf({5, 33}), weight = leaf({33});
  const at::Tensor a = at::randn({5, 33}), b = at::randn({5, 33});
  const auto fused = residual_rms_norm(x, residual, weight, kEps);
  const at::Tensor sum = x + residual;
  const at::Tensor normed = weight * (sum * at::rsqrt(sum.pow(2).mean(-1, true) + kEps));
  const auto got =
      torch::autograd::grad({(fused.sum * a + fused.normed * b).sum()}, {x, residual, weight});
  const auto want = torch::autograd::grad({(sum * a + normed * b).sum()}, {x, residual, weight});
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(at::allclose(got[i], want[i], 1e-5, 1e-5)) << i;
}

TEST(ResidualRmsNorm, OneOfTheOutputsMayBeUnused) {
  const at::Tensor x = at::randn({4, 16}).set_requires_grad(true);
  const at::Tensor residual = at::randn({4, 16}), weight = at::randn({16});
  const auto out = residual_rms_norm(x, residual, weight, kEps);
  const at::Tensor from_sum =
      torch::autograd::grad({out.sum.sum()}, {x}, {}, /*retain_graph=*/true)[0];
  EXPECT_TRUE(from_sum.equal(at::ones({4, 16})));
  const at::Tensor from_normed = torch::autograd::grad({out.normed.sum()}, {x})[0];
  const auto want = kPlainRmsNorm.backward(out.sum.detach(), weight, at::Tensor(),
                                           at::ones({4, 16}), kEps, RmsNormKind::kPlain, false);
  EXPECT_TRUE(at::allclose(from_normed, want.x, 1e-5, 1e-6));
}

TEST(ResidualRmsNorm, TakesStridedTensors) {
  const at::Tensor x = at::randn({16, 4}).t(), residual = at::randn({4, 32}).slice(1, 0, 16);
  const at::Tensor weight = at::randn({32}).slice(0, 0, 32, 2);
  const auto got = residual_rms_norm(x, residual, weight, kEps);
  const auto want =
      residual_rms_norm(x.contiguous(), residual.contiguous(), weight.contiguous(), kEps);
  EXPECT_TRUE(got.sum.equal(want.sum));
  EXPECT_TRUE(got.normed.equal(want.normed));
}

TEST(ResidualRmsNorm, RefusesWhatDoesNotFitTogether) {
  const at::Tensor x = at::randn({4, 16}), weight = at::randn({16});
  EXPECT_THROW(residual_rms_norm(x, at::randn({4, 1}), weight, kEps), c10::Error);
  EXPECT_THROW(residual_rms_norm(x, x, at::randn({15}), kEps), c10::Error);
  EXPECT_THROW(residual_rms_norm(x, x, weight.to(at::kBFloat16), kEps), c10::Error);
  EXPECT_THROW(residual_rms_norm(x, x.to(at::kHalf), weight, kEps), c10::Error);
  EXPECT_THROW(
      residual_rms_norm(x.to(at::kDouble), x.to(at::kDouble), weight.to(at::kDouble), kEps),
      c10::Error);
  EXPECT_THROW(residual_rms_norm(at::randn({4, 0}), at::randn({4, 0}), at::randn({0}), kEps),
               c10::Error);
}

}  // namespace
}  // namespace lorry::ops
