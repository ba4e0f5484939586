#include "ops/row_products.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

namespace lorry::ops {
namespace {

class RowProducts : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    if (!cpu::reads_rows_of(GetParam())) GTEST_SKIP() << "no AVX2, FMA and F16C here";
    at::manual_seed(5);
  }
  static Weight random(int64_t out, int64_t in, bool has_bias = true) {
    return Weight::dense((at::randn({out, in}) * 0.1).to(GetParam()),
                         has_bias ? at::randn({out}) : at::Tensor());
  }
  static at::Tensor exact(const at::Tensor& x, const Weight& weight) {
    const at::Tensor y = at::matmul(x.to(at::kDouble), weight.data.to(at::kDouble).t());
    return weight.bias.defined() ? y + weight.bias.to(at::kDouble) : y;
  }
  const at::NoGradGuard no_grad_;
};

TEST_P(RowProducts, AreTheProductsOfTheNumbersInFloat32) {
  // Below, at and beyond what a kernel takes at a time: rows of x and W in fours and threes,
  // columns in sixteens and thousands.
  for (const auto& [out, in] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {3, 15}, {4, 16}, {7, 40}, {66, 896}, {9, 1024}, {5, 1030}, {12, 2500}}) {
    const Weight weight = random(out, in, out % 2 == 1);
    for (const int64_t rows : {0, 1, 2, 3, 4, 5, 7, 64, 65, 131}) {
      const at::Tensor x = at::randn({rows, in});
      const at::Tensor got = linear(x, weight), want = exact(x, weight);
      ASSERT_EQ(got.sizes(), want.sizes());
      ASSERT_EQ(got.scalar_type(), at::kFloat);
      if (rows == 0) continue;
      EXPECT_LE((got.to(at::kDouble) - want).abs().max().item<double>(), 2e-5)
          << rows << " x " << in << " with " << out << " x " << in;
    }
  }
}

TEST_P(RowProducts, OfARowAreTheSameWhateverOtherRowsThereAre) {
  const Weight weight = random(70, 2500);
  const at::Tensor x = at::randn({140, 2500});
  const at::Tensor all = linear(x, weight);
  for (const int64_t rows : {1, 2, 3, 4, 5, 16, 64, 100}) {
    for (int64_t first = 0; first + rows <= x.size(0); first += rows) {
      const at::Tensor some = linear(x.narrow(0, first, rows), weight);
      ASSERT_TRUE(at::equal(some, all.narrow(0, first, rows))) << rows << " from " << first;
    }
  }
}

TEST_P(RowProducts, OfSeveralModulesAreSideBySide) {
  const Weight a = random(9, 96), b = random(4, 96, false), c = random(130, 96);
  const at::Tensor x = at::randn({5, 96});
  const Weight* const modules[] = {&a, &b, &c};
  ASSERT_TRUE(cpu::takes_rows(x, modules));
  const at::Tensor each = at::cat({linear(x, a), linear(x, b), linear(x, c)}, 1);
  EXPECT_TRUE(at::equal(cpu::row_products(x, modules), each));
}

TEST_P(RowProducts, KeepTheLeadingDimensions) {
  const Weight weight = random(6, 32);
  const at::Tensor x = at::randn({2, 3, 32});
  const at::Tensor y = linear(x, weight);
  ASSERT_EQ(y.sizes(), (std::vector<int64_t>{2, 3, 6}));
  EXPECT_TRUE(at::equal(y.flatten(0, 1), linear(x.flatten(0, 1), weight)));
}

TEST_P(RowProducts, OfInfinityAndNaNAreNoNumbers) {
  Weight weight = random(5, 40, false);
  weight.data[2][33] = INFINITY;
  weight.data[3][1] = NAN;
  const at::Tensor y = linear(at::ones({1, 40}), weight)[0];
  EXPECT_TRUE(at::isinf(y[2]).item<bool>());
  EXPECT_TRUE(at::isnan(y[3]).item<bool>());
  EXPECT_TRUE(at::isfinite(y[1]).item<bool>() && at::isfinite(y[4]).item<bool>());
}

INSTANTIATE_TEST_SUITE_P(Dtypes, RowProducts, testing::Values(at::kBFloat16, at::kHalf));

class IntProducts : public testing::TestWithParam<WeightFormat> {
 protected:
  void SetUp() override {
    if (!cpu::reads_rows_of(at::kBFloat16)) GTEST_SKIP() << "no AVX2, FMA and F16C here";
    at::manual_seed(6);
  }
  static Weight random(int64_t out, int64_t in, bool has_bias = true) {
    const at::Tensor bias = has_bias ? at::randn({out}) : at::Tensor();
    return quantize(Weight::dense(at::randn({out, in}) * 0.1, bias), GetParam()).value();
  }
  /// What rounding a group of activations to 16 bits may cost, and float32's sums.
  static at::Tensor bound(const at::Tensor& x, const Weight& weight) {
    at::Tensor step = at::empty_like(x);
    for (int64_t first = 0; first < x.size(1); first += 128) {
      const int64_t count = std::min<int64_t>(128, x.size(1) - first);
      const at::Tensor group = x.narrow(1, first, count);
      step.narrow(1, first, count).copy_((group.abs().amax(1, true) / 65534).expand_as(group));
    }
    return at::matmul(step, dequantize(weight, at::kFloat).abs().t()) + 2e-5;
  }
  const at::NoGradGuard no_grad_;
};

TEST_P(IntProducts, AreThoseOfTheWidenedWeightWithinTheRoundingOfTheActivations) {
  std::vector<std::pair<int64_t, int64_t>> sizes{{1, 128}, {6, 896}, {9, 2560}, {75, 384}};
  sizes.emplace_back(6, 40960);  // of which no block fits the cache
  if (GetParam() == WeightFormat::kInt8Rows) sizes.insert(sizes.end(), {{3, 5}, {5, 1000}});
  for (const auto& [out, in] : sizes) {
    const Weight weight = random(out, in, out % 2 == 1);
    const at::Tensor wide = dequantize(weight, at::kDouble);
    for (const int64_t rows : {0, 1, 2, 3, 5, 33, 70}) {
      at::Tensor x = at::randn({rows, in});
      if (rows > 1) x[1] *= 300;
      if (rows > 2) x[2][in / 2] = 5000;  // as the activations of real models have
      at::Tensor want = at::matmul(x.to(at::kDouble), wide.t());
      if (weight.bias.defined()) want += weight.bias;
      const at::Tensor got = linear(x, weight);
      ASSERT_EQ(got.sizes(), want.sizes());
      if (rows == 0) continue;
      const at::Tensor excess = (got - want).abs() - bound(x, weight) - want.abs() * 1e-6;
      EXPECT_LE(excess.max().item<double>(), 0) << rows << " x " << in << " with " << out;
    }
  }
}

TEST_P(IntProducts, OfARowAreTheSameWhateverOtherRowsThereAre) {
  const Weight weight = random(78, 1024);
  const at::Tensor x = at::randn({80, 1024}), all = linear(x, weight);
  for (const int64_t rows : {1, 2, 3, 11, 12, 16, 64}) {
    for (int64_t first = 0; first + rows <= x.size(0); first += rows) {
      const at::Tensor some = linear(x.narrow(0, first, rows), weight);
      ASSERT_TRUE(at::equal(some, all.narrow(0, first, rows))) << rows << " from " << first;
    }
  }
}

TEST_P(IntProducts, OfActivationsWithoutANumberAreNone) {
  const Weight weight = random(5, 256);
  for (const float odd : {NAN, INFINITY}) {
    const at::Tensor x = at::ones({2, 256});
    x[1][130] = odd;
    const at::Tensor y = linear(x, weight);
    EXPECT_TRUE(at::isfinite(y[0]).all().item<bool>());
    EXPECT_FALSE(at::isfinite(y[1]).any().item<bool>());
  }
}

TEST_P(IntProducts, OfZerosAreTheBias) {
  const Weight weight = random(5, 256);
  EXPECT_TRUE(at::equal(linear(at::zeros({1, 256}), weight)[0], weight.bias));
}

TEST(Fp8Products, AreThoseOfTheWidenedWeight) {
  if (!cpu::reads_rows_of(at::kBFloat16)) GTEST_SKIP() << "no AVX2, FMA and F16C here";
  const at::NoGradGuard no_grad;
  at::manual_seed(7);
  for (const auto& [out, in] : std::vector<std::pair<int64_t, int64_t>>{{6, 896}, {9, 1100}}) {
    const at::Tensor numbers =
        at::randn({out, in}) * at::randn({out, in}).exp();  // small and large
    Weight weight =
        quantize(Weight::dense(numbers, at::randn({out})), WeightFormat::kFp8Rows).value();
    const at::Tensor x = at::randn({5, in}), wide = dequantize(weight, at::kDouble);
    const at::Tensor want = at::linear(x.to(at::kDouble), wide, weight.bias.to(at::kDouble));
    const Weight* const modules[] = {&weight};
    EXPECT_FALSE(cpu::takes_rows(x, modules)) << "a weight that training may read";
    weight.is_for_serving = true;
    ASSERT_TRUE(cpu::takes_rows(x, modules));
    const at::Tensor got = linear(x, weight);
    EXPECT_LE((got - want).abs().max().item<double>(), 2e-6 * want.abs().max().item<double>());
    EXPECT_TRUE(at::equal(linear(x.narrow(0, 4, 1), weight)[0], got[4]));
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, IntProducts,
                         testing::Values(WeightFormat::kInt8Rows, WeightFormat::kInt4Groups),
                         [](const auto& info) { return std::string(format_name(info.param)); });

}  // namespace
}  // namespace lorry::ops
