// NF4 beside bitsandbytes' recorded numbers, and its loops beside libtorch's own operations.
#include "ops/nf4.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/digest.h"

namespace lorry::ops {
namespace {

constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

/// tests/record_nf4.py makes the same.
at::Tensor recorded_matrix() {
  constexpr int64_t kRows = 160, kColumns = 448;
  at::Tensor matrix = at::empty({kRows, kColumns}, at::kFloat);
  float* to = matrix.data_ptr<float>();
  for (int64_t i = 0; i < kRows * kColumns; ++i) {
    const auto value = static_cast<double>((i * i * 7919 + i * 104729) % 20011 - 10005);
    to[i] = static_cast<float>(std::ldexp(value / 65536, static_cast<int>(i / 64 % 12 - 7)));
  }
  matrix.view(-1).narrow(0, 128, 64).zero_();
  return matrix;
}

std::string digest(const at::Tensor& tensor) {
  return sha256_hex({static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()});
}

Weight nf4(const at::Tensor& matrix) {
  return quantize(Weight::dense(matrix), WeightFormat::kNf4).value();
}

TEST(Nf4, NumbersAreThoseOfBitsandbytes) {
  constexpr const char* kRecorded[] = {
      // bitsandbytes 0.50.2, by tests/record_nf4.py
      "0322efc128c0bb8a6a78de779be7d7ec031370380d3978bc145e6a34830fe177",
      "eccfa1cd711b6e81ed7c949edd4c1e00617aebdc81f74e31d3581c068176443e",
      "10b992436cf905f7142826679e98f1c1d71a0769475f6840f6bd16804ae6d2fb"};
  for (int i = 0; i < 3; ++i) {
    const Weight weight = nf4(recorded_matrix().to(kDtypes[i]));
    EXPECT_EQ(digest(dequantize(weight, kDtypes[i])), kRecorded[i]) << kDtypes[i];
  }
}

TEST(Nf4, LoopsAndLibtorchsOperationsGiveTheSameBits) {
  at::manual_seed(1);
  const Weight weight = nf4(at::randn({300, 832}) * 0.02);
  for (const at::ScalarType dtype : kDtypes) {
    at::Tensor plain = at::empty({300, 832}, dtype);
    widen_nf4_plain(weight, plain);
    EXPECT_EQ(digest(dequantize(weight, dtype)), digest(plain)) << dtype;
  }
}

TEST(Nf4, BlocksMayCrossRowsAndAMatrixMayBeAView) {
  at::manual_seed(2);
  const at::Tensor matrix = at::randn({64, 40});
  const at::Tensor flat = dequantize(nf4(matrix.view({40, 64})), at::kFloat);
  EXPECT_TRUE(at::equal(dequantize(nf4(matrix), at::kFloat).view(-1), flat.view(-1)));
  const at::Tensor view = matrix.t().contiguous().t();
  EXPECT_TRUE(at::equal(dequantize(nf4(view), at::kFloat).view(-1), flat.view(-1)));
}

TEST(Nf4, AMatrixOfManyPiecesIsThatOfItsWhole) {
  at::manual_seed(3);
  const at::Tensor matrix = at::randn({1300, 1088});  // more than is worked on at a time
  const Weight weight = nf4(matrix);
  const at::Tensor blocks = matrix.view({-1, kNf4Block});
  const at::Tensor error = (dequantize(weight, at::kFloat).view({-1, kNf4Block}) - blocks).abs();
  // Half the widest gap between two codes, and what rounding the scale adds.
  EXPECT_LT((error.amax(1) / blocks.abs().amax(1)).max().item<double>(), 0.19);
  EXPECT_EQ(static_cast<int64_t>(weight.data.nbytes() + weight.scales.nbytes() +
                                 weight.second_scales.nbytes()),
            nf4_bytes(matrix.numel()));
}

TEST(Nf4, TheNumberOfThreadsChangesNothing) {
  at::manual_seed(6);
  const at::Tensor matrix = at::randn({3072, 2048});
  const int threads = at::get_num_threads();
  const std::string several = digest(dequantize(nf4(matrix), at::kBFloat16));
  at::set_num_threads(1);
  EXPECT_EQ(digest(dequantize(nf4(matrix), at::kBFloat16)), several);
  at::set_num_threads(threads);
}

TEST(Nf4, ZerosStayZerosAndWhatIsNoNumberIsRefused) {
  at::Tensor matrix = at::zeros({4, 64});
  EXPECT_TRUE(at::equal(dequantize(nf4(matrix), at::kFloat), matrix));
  for (const double bad : {NAN, INFINITY, -INFINITY}) {
    matrix[2][5] = bad;
    for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kFp8Rows}) {
      EXPECT_EQ(quantize(Weight::dense(matrix), format).error().kind, ErrorKind::kInvalidInput);
    }
  }
}

TEST(Fp8Rows, NumbersAreLibtorchsE4m3TimesAScaleARow) {
  at::manual_seed(4);
  at::Tensor matrix = at::randn({70, 300}) * at::logspace(-6, 3, 70).unsqueeze(1);
  matrix[3].mul_(at::logspace(-9, 0, 300));  // subnormal e4m3 numbers too
  matrix[5].zero_();
  const at::Tensor scale = (matrix.abs().amax(1, true) / 448).clamp_min(1e-30);
  const at::Tensor want = (matrix / scale).to(at::kFloat8_e4m3fn).to(at::kFloat) * scale;
  const Weight weight = quantize(Weight::dense(matrix), WeightFormat::kFp8Rows).value();
  for (const at::ScalarType dtype : kDtypes) {
    EXPECT_EQ(digest(dequantize(weight, dtype)), digest(want.to(dtype))) << dtype;
  }
}

}  // namespace
}  // namespace lorry::ops
