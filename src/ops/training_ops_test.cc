// The operations of a training step that have a backward pass of their own, beside autograd over
// libtorch's.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/attention.h"
#include "ops/cross_entropy.h"
#include "ops/gate.h"
#include "ops/lora_linear.h"
#include "ops/rope.h"

namespace lorry::ops {
namespace {

using Tensors = std::vector<at::Tensor>;

class TrainingOps : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override { at::manual_seed(1); }
  static at::Tensor random(std::vector<int64_t> shape) { return at::randn(shape).to(GetParam()); }
  /// Relative to the largest number.
  static void expect_near(const at::Tensor& got, const at::Tensor& want, const char* what) {
    ASSERT_EQ(got.sizes(), want.sizes()) << what;
    const at::Tensor wide = want.to(at::kDouble);
    const double off = (got.to(at::kDouble) - wide).abs().max().item<double>();
    const double tolerance = GetParam() == at::kFloat ? 3e-6 : 0.03;
    EXPECT_LE(off, tolerance * wide.abs().max().item<double>()) << what;
  }
};

at::Tensor leaf(const at::Tensor& x) { return x.detach().clone().requires_grad_(true); }
at::Tensor wide_leaf(const at::Tensor& x) { return leaf(x.to(at::kDouble)); }

struct LoraCase {
  bool joined, bias, all_adapted;
  WeightFormat format;
};

TEST_P(TrainingOps, ALoraLinearMapAddsTheGradientsOfItsPairs) {
  const int64_t in = 128, tokens = 37;
  const std::vector<int64_t> outs = {64, 32, 32}, ranks = {4, 8, 4};
  for (const LoraCase& c : {LoraCase{true, true, true, WeightFormat::kDense},
                            LoraCase{true, false, true, WeightFormat::kDense},
                            LoraCase{false, true, false, WeightFormat::kDense},
                            LoraCase{false, true, true, WeightFormat::kFp8Rows}}) {
    const at::Tensor joined = random({128, in}), biases = random({128});
    std::vector<LoraModule> modules;
    const at::Tensor x = random({tokens, in}).requires_grad_(true), wide_x = wide_leaf(x);
    Tensors wants, leaves;
    const at::Tensor grads = at::ones({16 * in + 64 * 4 + 32 * 8 + 32 * 4});
    int64_t row = 0, a_at = 0, b_at = 16 * in;
    for (size_t m = 0; m < outs.size(); ++m) {
      at::Tensor w = joined.narrow(0, row, outs[m]), bias = biases.narrow(0, row, outs[m]);
      row += outs[m];
      if (!c.joined) w = w.clone(), bias = bias.clone();
      LoraModule module{.weight = Weight::dense(w, c.bias ? bias : at::Tensor())};
      if (c.format != WeightFormat::kDense) module.weight = *quantize(module.weight, c.format);
      at::Tensor want = at::matmul(wide_x, dequantize(module.weight, at::kDouble).t());
      if (c.bias) want = want + bias.to(at::kDouble);
      if (c.all_adapted || m != 1) {
        module.a = random({ranks[m], in}) * 0.1;
        module.b = random({outs[m], ranks[m]});
        module.scale = 0.5 * static_cast<double>(m + 1);
        const at::Tensor memory = c.joined ? grads : at::ones_like(grads);
        module.a_grad = memory.narrow(0, a_at, ranks[m] * in).view({ranks[m], in});
        module.b_grad = memory.narrow(0, b_at, outs[m] * ranks[m]).view({outs[m], ranks[m]});
        a_at += ranks[m] * in, b_at += outs[m] * ranks[m];
        const at::Tensor a = wide_leaf(module.a), b = wide_leaf(module.b);
        want = want + at::matmul(at::matmul(wide_x, a.t()), b.t()) * module.scale;
        leaves.insert(leaves.end(), {a, b});
      }
      wants.push_back(want);
      modules.push_back(std::move(module));
    }
    const at::Tensor y = lora_linear(x, modules), want = at::cat(wants, 1);
    expect_near(y, want, "y");
    const at::Tensor seed = random({tokens, 128});
    torch::autograd::backward({want}, {seed.to(at::kDouble)});
    torch::autograd::backward({y}, {seed});
    expect_near(x.grad(), wide_x.grad(), "x");
    size_t next = 0;
    for (const LoraModule& module : modules) {
      if (!module.a.defined()) continue;
      expect_near(module.a_grad, leaves[next++].grad() + 1, "a");
      expect_near(module.b_grad, leaves[next++].grad() + 1, "b");
    }
  }
}

TEST_P(TrainingOps, ALoraLinearMapAsksForItsInputAgain) {
  const at::Tensor x = random({9, 16});
  const auto run = [&](std::function<at::Tensor()> x_again) {
    at::manual_seed(2);
    LoraModule module{.weight = Weight::dense(random({8, 16}))};
    module.a = random({2, 16}), module.b = random({8, 2});
    module.a_grad = at::zeros({2, 16}), module.b_grad = at::zeros({8, 2});
    const at::Tensor y = lora_linear(x, {module}, std::move(x_again));
    torch::autograd::backward({y}, {at::ones_like(y)});
    return module.a_grad;
  };
  int asked = 0;
  const at::Tensor again = run([&] {
    ++asked;
    return x;
  });
  EXPECT_EQ(asked, 1);
  EXPECT_TRUE(at::equal(again, run({})));
}

TEST_P(TrainingOps, AGateOfJoinedHalvesIsThatOfItsHalves) {
  using Kind = Activation::Kind;
  for (const Kind kind : {Kind::kSilu, Kind::kGelu, Kind::kGeluTanh, Kind::kClampedSilu}) {
    const Activation activation{kind, 1.7, 1.0};
    const at::Tensor joined = random({21, 2 * 40}).requires_grad_(true), wide = wide_leaf(joined);
    const at::Tensor y = gated(joined, activation);
    const auto halves = wide.chunk(2, 1);
    const at::Tensor want = gated(halves[0], halves[1], activation), seed = random({21, 40});
    torch::autograd::backward({y}, {seed});
    torch::autograd::backward({want}, {seed.to(at::kDouble)});
    expect_near(y, want, "y");
    expect_near(joined.grad(), wide.grad(), "gradient");
  }
}

TEST_P(TrainingOps, RotatingInPlaceTurnsTheFirstHeadsOfEachRow) {
  const int64_t tokens = 11, heads = 3, d = 20, half = 8;
  const at::Tensor angles = at::randn({tokens, 1, half});
  const at::Tensor cos = angles.cos().to(GetParam()), sin = angles.sin().to(GetParam());
  const at::Tensor x = random({tokens, 5 * d}).requires_grad_(true), other = leaf(x);
  const at::Tensor y = rotate_in_place(x * 2, heads, d, cos, sin);
  const at::Tensor all = (other * 2).unflatten(1, {5, d});
  const at::Tensor want =
      at::cat({rotate(all.narrow(1, 0, heads), cos, sin), all.narrow(1, heads, 2)}, 1).flatten(1);
  EXPECT_TRUE(at::equal(y, want));
  const at::Tensor seed = random({tokens, 5 * d}), kept = seed.clone();
  torch::autograd::backward({y}, {seed});
  torch::autograd::backward({want}, {seed});
  EXPECT_TRUE(at::equal(seed, kept));
  EXPECT_TRUE(at::equal(x.grad(), other.grad()));
}

TEST_P(TrainingOps, JoinedAttentionIsThatOfEachSequenceAlone) {
  const int64_t heads = 6, kv_heads = 2, d = 16;
  const std::vector<int64_t> ends = {0, 13, 14, 14, 40};
  const at::Tensor qkv = random({40, (heads + 2 * kv_heads) * d}).requires_grad_(true);
  const at::Tensor wide = wide_leaf(qkv);
  const AttentionParams params{.scale = 0.3};
  const at::Tensor y = PackedSequences(ends).attend_joined(qkv, heads, kv_heads, params);
  Tensors parts;
  for (size_t i = 1; i < ends.size(); ++i) {
    const int64_t n = ends[i] - ends[i - 1];
    const at::Tensor rows = wide.narrow(0, ends[i - 1], n).unflatten(1, {-1, d});
    const at::Tensor q = rows.narrow(1, 0, heads).transpose(0, 1);
    const auto group = [&](int64_t first) {
      return rows.narrow(1, first, kv_heads).repeat_interleave(heads / kv_heads, 1).transpose(0, 1);
    };
    at::Tensor scores = at::matmul(q, group(heads).transpose(1, 2)) * params.scale;
    scores = scores.masked_fill(at::ones({n, n}, at::kBool).triu(1), -INFINITY);
    parts.push_back(at::matmul(scores.softmax(-1), group(heads + kv_heads)).transpose(0, 1));
  }
  const at::Tensor want = at::cat(parts), seed = random({40, heads, d});
  torch::autograd::backward({y}, {seed});
  torch::autograd::backward({want}, {seed.to(at::kDouble)});
  expect_near(y, want, "y");
  expect_near(qkv.grad(), wide.grad(), "gradient");

  const at::Tensor apart = leaf(qkv);
  const auto views = apart.unflatten(1, {-1, d}).split_with_sizes({heads, kv_heads, kv_heads}, 1);
  const at::Tensor z = PackedSequences(ends).attend(views[0], views[1], views[2], params);
  torch::autograd::backward({z}, {seed});
  EXPECT_TRUE(at::equal(z, y));
  EXPECT_TRUE(at::equal(apart.grad(), qkv.grad()));
}

TEST_P(TrainingOps, LogitsBecomeTheGradientOfTheirCrossEntropy) {
  const int64_t rows = 5, vocab = 3001;
  at::Tensor logits = (random({rows, vocab}) * 4).to(GetParam());
  logits[1].narrow(0, 0, 10).fill_(-INFINITY);
  const at::Tensor targets = at::randint(10, vocab, {rows}, at::kLong), wide = wide_leaf(logits);
  const at::Tensor want = at::cross_entropy_loss(wide, targets, {}, at::Reduction::Sum);
  torch::autograd::backward({want * 0.5}, {});
  const at::Tensor loss = cross_entropy_(logits, targets, 0.5);
  EXPECT_NEAR(loss.item<double>(), want.item<double>(), 2e-6 * want.item<double>());
  expect_near(logits, wide.grad(), "gradient");
}

TEST_P(TrainingOps, ANotANumberAmongLogitsReachesTheLoss) {
  at::Tensor logits = random({2, 40});
  logits[1][3].fill_(NAN);
  EXPECT_TRUE(std::isnan(cross_entropy_(logits, at::tensor({1, 2}, at::kLong), 1).item<double>()));
}

TEST(AdjacentRows, AreOneMatrixOnlyWhereTheyFollowEachOther) {
  const at::Tensor x = at::arange(24).view({6, 4});
  EXPECT_TRUE(at::equal(adjacent_rows({x.narrow(0, 1, 2), x.narrow(0, 3, 3)}), x.narrow(0, 1, 5)));
  EXPECT_FALSE(adjacent_rows({x.narrow(0, 0, 2), x.narrow(0, 3, 3)}).defined());
  EXPECT_FALSE(adjacent_rows({x.narrow(0, 0, 2), x.narrow(0, 2, 2).clone()}).defined());
  EXPECT_FALSE(adjacent_rows({x.narrow(1, 0, 2)}).defined());
}

INSTANTIATE_TEST_SUITE_P(Dtypes, TrainingOps, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) {
                           return std::string(info.param == at::kFloat ? "float32" : "bfloat16");
                         });

}  // namespace
}  // namespace lorry::ops
