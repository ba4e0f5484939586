// Each operation against a plain float64 one, forward and backward.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <unistd.h>  // sysconf

#include <cmath>
#include <fstream>
#include <functional>

#include "ops/attention.h"
#include "ops/cpu_packed.h"
#include "ops/device.h"
#include "ops/gate.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "ops/weight.h"

namespace lorry::ops {
namespace {

using Tensors = std::vector<at::Tensor>;
using Function = std::function<at::Tensor(const Tensors&)>;

/// Output and gradients in the inputs, the output weighted by `seed`.
Tensors with_gradients(const Function& fn, const Tensors& inputs, const at::Tensor& seed) {
  Tensors leaves;
  for (const auto& input : inputs) leaves.push_back(input.detach().clone().requires_grad_(true));
  const at::Tensor out = fn(leaves);
  Tensors all = torch::autograd::grad({out}, leaves, {seed.to(out.scalar_type())});
  all.insert(all.begin(), out.detach());
  return all;
}

class Ops : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override { at::manual_seed(1); }
  static at::Tensor random(std::vector<int64_t> shape) { return at::randn(shape).to(GetParam()); }
  /// Some roundings of numbers of size 8, or float32's own.
  static double tolerance() {
    return GetParam() == at::kFloat ? 3e-5 : GetParam() == at::kHalf ? 0.02 : 0.12;
  }
  /// `fast` in the parameter's dtype beside `plain` on the same numbers in float64.
  static void compare(const Function& fast, const Function& plain, const Tensors& inputs,
                      std::vector<int64_t> out_shape) {
    const at::Tensor seed = random(std::move(out_shape));
    Tensors wide;
    for (const auto& input : inputs) wide.push_back(input.to(at::kDouble));
    const Tensors got = with_gradients(fast, inputs, seed);
    const Tensors want = with_gradients(plain, wide, seed.to(at::kDouble));
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(got[i].sizes(), want[i].sizes());
      EXPECT_EQ(got[i].scalar_type(), GetParam());
      const double worst = (got[i].to(at::kDouble) - want[i]).abs().max().item<double>();
      EXPECT_LE(worst, tolerance()) << (i == 0 ? "output" : "gradient") << " " << i;
    }
  }
};

at::Tensor plain_norm(const at::Tensor& x, const at::Tensor& weight, double offset) {
  return x * at::rsqrt(x.pow(2).mean(-1, true) + 1e-6) * (weight + offset);
}

TEST_P(Ops, RmsNormOfEachKindIsTheFormula) {
  for (const auto kind :
       {RmsNormKind::kPlain, RmsNormKind::kWideWeight, RmsNormKind::kOnePlusWeight}) {
    const double offset = kind == RmsNormKind::kOnePlusWeight ? 1 : 0;
    compare([&](const Tensors& in) { return rms_norm(in[0], in[1], 1e-6, kind); },
            [&](const Tensors& in) { return plain_norm(in[0], in[1], offset); },
            {random({5, 37}), random({37})}, {5, 37});
  }
}

TEST_P(Ops, RotationTurnsTheFirstNumbersOfAHeadAndLeavesTheRest) {
  const at::Tensor angle = at::randn({4, 1, 5});
  const at::Tensor cos = angle.cos().to(GetParam()), sin = angle.sin().to(GetParam());
  const at::Tensor c = cos.to(at::kDouble), s = sin.to(at::kDouble);
  for (const int64_t d : {10, 16}) {
    compare([&](const Tensors& in) { return rotate(in[0], cos, sin); },
            [&](const Tensors& in) {
              const at::Tensor a = in[0].narrow(-1, 0, 5), b = in[0].narrow(-1, 5, 5);
              return at::cat({a * c - b * s, b * c + a * s, in[0].narrow(-1, 10, d - 10)}, -1);
            },
            {random({4, 3, d})}, {4, 3, d});
  }
}

TEST_P(Ops, GatesAreTheirFormulas) {
  using Kind = Activation::Kind;
  const auto plain = [](Kind kind, const at::Tensor& g, const at::Tensor& u) -> at::Tensor {
    if (kind == Kind::kSilu) return g / (1 + (-g).exp()) * u;
    if (kind == Kind::kGelu) return 0.5 * g * (1 + at::erf(g / std::sqrt(2.0))) * u;
    if (kind == Kind::kGeluTanh) {
      return 0.5 * g * (1 + at::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g.pow(3)))) * u;
    }
    const at::Tensor h = g.clamp_max(1.5);
    return h / (1 + (-1.702 * h).exp()) * (u.clamp(-1.5, 1.5) + 1);
  };
  for (const Kind kind : {Kind::kSilu, Kind::kGelu, Kind::kGeluTanh, Kind::kClampedSilu}) {
    compare(
        [&](const Tensors& in) {
          return gated(in[0], in[1], {kind, 1.702, 1.5});
        },
        [&](const Tensors& in) { return plain(kind, in[0], in[1]); },
        {random({3, 11}), random({3, 11})}, {3, 11});
  }
}

/// Each query by itself, in the dtype of its inputs.
at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const AttentionParams& params) {
  const int64_t n = q.size(0), length = k.size(0), heads = q.size(1), group = heads / k.size(1);
  Tensors rows;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t end = length - n + i + 1;
    const int64_t begin = params.window > 0 ? std::max<int64_t>(0, end - params.window) : 0;
    Tensors outs;
    for (int64_t h = 0; h < heads; ++h) {
      const at::Tensor keys = k.select(1, h / group).slice(0, begin, end);
      at::Tensor scores = at::mv(keys, q[i][h]) * params.scale;
      if (params.softcap > 0) scores = at::tanh(scores / params.softcap) * params.softcap;
      if (params.sinks.defined()) {
        scores = at::cat({scores, params.sinks[h].to(scores.scalar_type()).view({1})});
      }
      const at::Tensor weights = scores.softmax(0).slice(0, 0, end - begin);
      outs.push_back(at::mv(v.select(1, h / group).slice(0, begin, end).t(), weights));
    }
    rows.push_back(at::stack(outs));
  }
  return at::stack(rows);
}

std::vector<AttentionParams> attention_forms() {
  const at::Tensor sinks = at::tensor({0.5f, -1.0f, 2.0f, 0.1f});
  return {{0.4},         {0.4, 0, 3},         {0.3, 2.0},
          {0.3, 2.0, 4}, {0.35, 0, 0, sinks}, {0.35, 1.5, 2, sinks}};
}

TEST_P(Ops, AttentionOfOneSequenceIsTheFormula) {
  for (const auto& params : attention_forms()) {
    for (const int64_t n : {1, 3, 7}) {
      const auto plain = [&](const Tensors& in) {
        return plain_attention(in[0], in[1], in[2], params);
      };
      const auto ours = [&](const Tensors& in) {
        MaskCache masks;
        return attend_one(in[0], in[1], in[2], params, masks);
      };
      compare(ours, plain, {random({n, 4, 8}), random({7, 2, 8}), random({7, 2, 8})}, {n, 4, 8});
    }
  }
}

TEST_P(Ops, ValuesMayBeOfAnotherWidthThanKeys) {
  const AttentionParams params{0.4};
  compare(
      [&](const Tensors& in) {
        MaskCache masks;
        return attend_one(in[0], in[1], in[2], params, masks);
      },
      [&](const Tensors& in) { return plain_attention(in[0], in[1], in[2], params); },
      {random({5, 4, 12}), random({5, 4, 12}), random({5, 4, 8})}, {5, 4, 8});
}

TEST_P(Ops, PackedSequencesDoNotSeeEachOther) {
  for (const auto& params : attention_forms()) {
    const auto ours = [&](const Tensors& in) {
      return PackedSequences({0, 5, 6, 13}).attend(in[0], in[1], in[2], params);
    };
    const auto plain = [&](const Tensors& in) {
      Tensors parts;
      for (const auto& [begin, n] : {std::pair<int64_t, int64_t>{0, 5}, {5, 1}, {6, 7}}) {
        parts.push_back(plain_attention(in[0].narrow(0, begin, n), in[1].narrow(0, begin, n),
                                        in[2].narrow(0, begin, n), params));
      }
      return at::cat(parts);
    };
    compare(ours, plain, {random({13, 4, 8}), random({13, 2, 8}), random({13, 2, 8})}, {13, 4, 8});
  }
}

TEST_P(Ops, PagedAttentionReadsTheBlocksInTheirOrder) {
  if (GetParam() == at::kHalf) GTEST_SKIP() << "the kernel takes float32 and bfloat16";
  const at::Tensor keys = random({4, 3, 2, 8}), values = random({4, 3, 2, 6});  // 4 blocks of 3
  const std::vector<int32_t> blocks = {2, 0, 3};
  const at::Tensor order = at::tensor(at::ArrayRef<int32_t>(blocks), at::kInt);
  const auto in_order = [&](const at::Tensor& pool) {
    return pool.index_select(0, order).flatten(0, 1).narrow(0, 0, 8).to(at::kDouble);
  };
  const at::Tensor q = random({1, 4, 8});
  for (const auto& params : attention_forms()) {
    at::Tensor out = at::empty({1, 4, 6}, q.options());
    const int64_t begin = params.window > 0 ? 8 - params.window : 0;
    cpu::attend_paged(q, keys, values, {{0, blocks.data(), begin, 8}}, params, out);
    const at::Tensor want =
        plain_attention(q.to(at::kDouble), in_order(keys), in_order(values), params);
    EXPECT_LE((out.to(at::kDouble) - want).abs().max().item<double>(), tolerance());
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Ops, testing::Values(at::kFloat, at::kBFloat16, at::kHalf));

TEST(Weight, EachFormatIsNearTheNumbersItWasMadeFrom) {
  at::manual_seed(2);
  const Weight dense = Weight::dense(at::randn({24, 256}));
  const auto off = [&](WeightFormat format) {
    const Weight weight = quantize(dense, format).value();
    const at::Tensor error = dequantize(weight, at::kFloat) - dense.data;
    return (error.norm() / dense.data.norm()).item<double>();
  };
  EXPECT_LT(off(WeightFormat::kFp8Rows), 0.04);
  EXPECT_LT(off(WeightFormat::kInt8Rows), 0.01);
  EXPECT_LT(off(WeightFormat::kInt4Groups), 0.13);
  EXPECT_LT(off(WeightFormat::kNf4), 0.11);
  EXPECT_LT(off(WeightFormat::kMxfp4), 0.16);
  EXPECT_GT(off(WeightFormat::kMxfp4), 0.02);
}

TEST(Weight, NumbersThatAFormatHoldsComeBackAsTheyWere) {
  const at::Tensor codes =
      at::tensor({0.f, 0.5f, 1.f, 1.5f, 2.f, 3.f, 4.f, 6.f, -0.5f, -1.f, -6.f});
  const at::Tensor block = at::cat({codes, codes.narrow(0, 0, 5), codes, codes.narrow(0, 0, 5)});
  const Weight dense = Weight::dense(block.view({1, 32}) * 0.25);
  const Weight weight = quantize(dense, WeightFormat::kMxfp4).value();
  EXPECT_TRUE(at::equal(dequantize(weight, at::kFloat), dense.data));
}

TEST(Weight, LinearOfAQuantisedWeightIsTheProductWithItsNumbers) {
  at::manual_seed(3);
  const Weight dense = Weight::dense(at::randn({10, 128}), at::randn({10}));
  for (const auto format : {WeightFormat::kNf4, WeightFormat::kInt4Groups, WeightFormat::kInt8Rows,
                            WeightFormat::kFp8Rows, WeightFormat::kMxfp4}) {
    const Weight weight = quantize(dense, format).value();
    const at::Tensor wide = dequantize(weight, at::kDouble);
    const at::Tensor x = at::randn({4, 128}), seed = at::randn({4, 10});
    const Tensors got =
        with_gradients([&](const Tensors& in) { return linear(in[0], weight); }, {x}, seed);
    const at::Tensor y = at::linear(x.to(at::kDouble), wide, dense.bias.to(at::kDouble));
    EXPECT_LE((got[0].to(at::kDouble) - y).abs().max().item<double>(), 1e-4);
    const at::Tensor dx = at::matmul(seed.to(at::kDouble), wide);
    EXPECT_LE((got[1].to(at::kDouble) - dx).abs().max().item<double>(), 1e-4);
  }
}

TEST(Weight, ASizeThatAFormatCannotHoldIsRefused) {
  const Weight odd = Weight::dense(at::randn({3, 40}));
  EXPECT_EQ(quantize(odd, WeightFormat::kNf4).error().kind, ErrorKind::kUnsupported);
  EXPECT_EQ(quantize(odd, WeightFormat::kInt4Groups).error().kind, ErrorKind::kUnsupported);
  const Weight half = Weight::dense(at::randn({3, 40}).to(at::kHalf));
  EXPECT_EQ(quantize(half, WeightFormat::kPacked).error().kind, ErrorKind::kUnsupported);
}

TEST(Weight, PackedProductsAreThoseOfTheDenseMatrix) {
  at::manual_seed(4);
  const at::NoGradGuard no_grad;
  int packed_types = 0;
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const Weight dense = Weight::dense(at::randn({72, 96}).to(type), at::randn({72}).to(type));
    if (!can_pack(dense)) continue;
    ++packed_types;
    const Weight packed = quantize(dense, WeightFormat::kPacked).value();
    // float32's order of sums; in bf16 one rounding of numbers up to 32.
    const double tolerance = type == at::kFloat ? 1e-4 : 0.25;
    for (const int64_t rows : {0, 1, 3, 9, 16, 37, 65, 500}) {
      const at::Tensor x = at::randn({rows, 96}).to(type);
      const at::Tensor want =
          at::linear(x.to(at::kDouble), dense.data.to(at::kDouble), dense.bias.to(at::kDouble));
      const at::Tensor got = linear(x, packed);
      ASSERT_EQ(got.sizes(), want.sizes());
      if (rows == 0) continue;
      const double worst = (got.to(at::kDouble) - want).abs().max().item<double>();
      EXPECT_LE(worst, tolerance) << rows << " rows of " << toString(type);
    }
  }
  if (packed_types == 0) GTEST_SKIP() << "no oneDNN on this machine";
}

/// Resident memory of this process in bytes.
int64_t resident_memory() {
  std::ifstream status("/proc/self/statm");
  int64_t size = 0, resident = 0;
  status >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

TEST(Weight, PackedProductsOfEveryNumberOfRowsDoNotFillTheMemory) {
  const at::NoGradGuard no_grad;
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const Weight dense = Weight::dense(at::randn({256, 256}).to(type));
    if (!can_pack(dense)) continue;
    const Weight packed = quantize(dense, WeightFormat::kPacked).value();
    const int64_t before = resident_memory();
    for (int64_t rows = 1; rows <= 512; ++rows) linear(at::randn({rows, 256}).to(type), packed);
    EXPECT_LT(resident_memory() - before, 64 << 20) << toString(type);
  }
}

TEST(Device, NamesWhatIsWrong) {
  EXPECT_TRUE(resolve_device("cpu")->is_cpu());
  EXPECT_EQ(resolve_device("tpu").error().kind, ErrorKind::kUsage);
  EXPECT_EQ(resolve_device("cuda:x").error().kind, ErrorKind::kUsage);
  EXPECT_EQ(resolve_dtype("int4", "", at::kCPU).error().kind, ErrorKind::kUsage);
  EXPECT_EQ(slow_dtype_warning(at::kBFloat16, at::kCPU).empty(), cpu::has_bf16_products());
  EXPECT_EQ(slow_dtype_warning(at::kFloat, at::kCPU), "");
  const auto stored = cpu::has_bf16_products() ? at::kBFloat16 : at::kFloat;
  EXPECT_EQ(resolve_dtype("auto", "bfloat16", at::kCPU).value(), stored);
  EXPECT_EQ(resolve_dtype("bfloat16", "float32", at::kCPU).value(), at::kBFloat16);
}

}  // namespace
}  // namespace lorry::ops
