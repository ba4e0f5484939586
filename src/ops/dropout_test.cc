#include "ops/dropout.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

namespace lorry::ops {
namespace {

at::Tensor some_keys(int64_t tokens) {
  return at::arange(tokens, at::kLong) * 0x1234567890abcdLL - 77;
}

/// The definition, number by number.
bool is_kept(int64_t key, uint64_t module, uint32_t column, double p) {
  const auto mixed = [](uint32_t x) {
    x = (x ^ (x >> 16)) * 0x7feb352dU;
    x = (x ^ (x >> 15)) * 0x846ca68bU;
    return x ^ (x >> 16);
  };
  const auto bits = static_cast<uint64_t>(key);
  const uint32_t salt = mixed(uint32_t(module) ^ mixed(uint32_t(module >> 32) + 1));
  const uint32_t row = mixed(uint32_t(bits >> 32) ^ mixed(uint32_t(bits) ^ salt));
  return mixed(row + column * 0x9e3779b1U) >= p * 4294967296.0 - 1e-6;
}

TEST(Dropout, IsItsDefinition) {
  const at::Tensor keys = some_keys(33);
  const at::Tensor mask = dropout_mask(keys, 70, 0.25, 9);
  for (int64_t t = 0; t < 33; ++t) {
    for (int64_t c = 0; c < 70; ++c) {
      ASSERT_EQ(mask[t][c].item<bool>(), is_kept(keys[t].item<int64_t>(), 9, c, 0.25));
    }
  }
}

TEST(Dropout, ATokensMaskIsItsOwnWhateverIsBesideIt) {
  const at::Tensor keys = some_keys(40);
  const at::Tensor whole = dropout_mask(keys, 64, 0.1, 3);
  EXPECT_TRUE(at::equal(dropout_mask(keys.narrow(0, 10, 5), 64, 0.1, 3), whole.narrow(0, 10, 5)));
  EXPECT_FALSE(at::equal(dropout_mask(keys, 64, 0.1, 4), whole));
}

TEST(Dropout, DropsTheShareThatItIsAsked) {
  for (const double p : {0.05, 0.5, 0.9}) {
    const at::Tensor kept = dropout_mask(some_keys(500), 400, p, 1).to(at::kDouble);
    EXPECT_NEAR(kept.mean().item<double>(), 1 - p, 0.005);
    EXPECT_NEAR(kept.mean(0).std().item<double>(), std::sqrt(p * (1 - p) / 500), 0.004);
    EXPECT_NEAR(kept.mean(1).std().item<double>(), std::sqrt(p * (1 - p) / 400), 0.004);
  }
}

TEST(Dropout, ScalesWhatItKeepsAndItsGradient) {
  const at::Tensor keys = some_keys(6);
  const at::Tensor x = at::randn({6, 8}).requires_grad_(true);
  const at::Tensor y = dropout(x, 0.5, keys, 2);
  const at::Tensor expected = dropout_mask(keys, 8, 0.5, 2).to(at::kFloat) * 2;
  EXPECT_TRUE(at::equal(y, x * expected));
  torch::autograd::backward({y.sum()}, {});
  EXPECT_TRUE(at::equal(x.grad(), expected));
  EXPECT_TRUE(dropout(x, 0, keys, 2).is_same(x));
}

TEST(Dropout, IsTheSameOnAGpu) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  const at::Tensor keys = some_keys(100);
  EXPECT_TRUE(at::equal(dropout_mask(keys.to(at::kCUDA), 300, 0.3, 5).cpu(),
                        dropout_mask(keys, 300, 0.3, 5)));
}

}  // namespace
}  // namespace lorry::ops
