// What a training changed is still there in 16 bits, however small the changes are.
#include "model/merge_rounding.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace lorry::model {
namespace {

constexpr at::ScalarType kDtypes[] = {at::kBFloat16, at::kHalf};

/// Weights of the usual size, and a change of rank 4 with `size` as its numbers' rms.
struct Trained {
  at::Tensor before, after;
};

Trained trained(at::ScalarType dtype, double size) {
  at::manual_seed(7);
  const at::Tensor before = (at::randn({512, 384}) * 0.02).to(dtype);
  at::Tensor change = at::matmul(at::randn({512, 4}), at::randn({4, 384}));
  change *= size / change.square().mean().sqrt().item<double>();
  return {before, before.to(at::kFloat) + change};
}

double kept(const Trained& t, const at::Tensor& rounded) {
  const at::Tensor from = t.before.to(at::kFloat), change = t.after - from;
  return ((rounded.to(at::kFloat) - from) * change).sum().item<double>() /
         change.square().sum().item<double>();
}

TEST(MergeRounding, AChangeBelowAUnitInTheLastPlaceIsKept) {
  for (const at::ScalarType dtype : kDtypes) {
    const Trained t = trained(dtype, dtype == at::kHalf ? 5e-7 : 4e-6);
    EXPECT_LT(kept(t, t.after.to(dtype)), 0.6);
    EXPECT_NEAR(kept(t, round_trained(t.before, t.after, 1)), 1, 0.05);
  }
}

TEST(MergeRounding, RandomRoundingIsOffByLessThanAUnitInTheLastPlace) {
  const Trained t = trained(at::kBFloat16, 4e-6);
  const at::Tensor off = (round_trained(t.before, t.after, 1).to(at::kFloat) - t.after).abs();
  EXPECT_TRUE((off <= t.after.abs() / 128).all().item<bool>());
}

TEST(MergeRounding, AChangeThatNearestRoundingKeepsIsRoundedToNearest) {
  for (const at::ScalarType dtype : kDtypes) {
    const Trained t = trained(dtype, 1e-3);
    EXPECT_TRUE(at::equal(round_trained(t.before, t.after, 1), t.after.to(dtype)));
  }
}

TEST(MergeRounding, TheSeedDecidesAndWhatIsUntrainedStaysAsItWas) {
  Trained t = trained(at::kBFloat16, 4e-6);
  t.after.slice(0, 100, 200).copy_(t.before.slice(0, 100, 200));
  const at::Tensor first = round_trained(t.before, t.after, 1);
  EXPECT_TRUE(at::equal(first, round_trained(t.before, t.after, 1)));
  EXPECT_FALSE(at::equal(first, round_trained(t.before, t.after, 2)));
  EXPECT_TRUE(at::equal(first.slice(0, 100, 200), t.before.slice(0, 100, 200)));
}

TEST(MergeRounding, Float32IsNotRoundedAndViewsAreRead) {
  const Trained whole = trained(at::kFloat, 4e-6);
  EXPECT_TRUE(at::equal(round_trained(whole.before, whole.after, 1), whole.after));
  const Trained t = trained(at::kBFloat16, 4e-6);
  const at::Tensor columns = round_trained(t.before.t(), t.after.t(), 1);
  EXPECT_EQ(columns.sizes(), t.before.t().sizes());
  EXPECT_NEAR(kept({t.before.t(), t.after.t()}, columns), 1, 0.05);
}

}  // namespace
}  // namespace lorry::model
