// The kernels of dequantize.h beside the CPU's loops, whose bits nf4_test.cc holds to
// bitsandbytes'.
#include "ops/dequantize.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ops/implementations_test.h"
#include "ops/nf4.h"
#include "ops/weight_cpu.h"

#ifdef LORRY_CUDA_ON_HOST
#include "ops/cuda_module_parts.h"
#include "ops/dequantize_cuda.cu"  // the kernels, compiled for the host

extern "C" const unsigned char lorry_fatbin_dequantize[1] = {};
#endif

namespace lorry::ops {
namespace {

const DequantizeImplementation* on_host() {
#ifdef LORRY_CUDA_ON_HOST
  return &kCudaDequantize;
#else
  return nullptr;
#endif
}

class DequantizeKernels : public testing::TestWithParam<KernelParam> {
 protected:
  void SetUp() override {
    std::string reason;
    target_ = cuda_target(std::get<0>(GetParam()), &CudaModule::dequantize, on_host(), reason);
    if (!target_) GTEST_SKIP() << reason;
    at::manual_seed(1);
  }
  void expect_the_cpu_s_bits(int64_t rows, int64_t width, WeightFormat format) const {
    const at::ScalarType dtype = std::get<1>(GetParam());
    const at::Tensor matrix = at::randn({rows, width}) * 0.02;
    const Weight weight = quantize(Weight::dense(matrix), format).value();
    const Weight there = weight.to(target_->device);
    const at::Tensor out =
        at::full({rows, width}, NAN, at::TensorOptions(target_->device).dtype(dtype));
    if (format == WeightFormat::kNf4) {
      target_->implementation.nf4(there, cpu::kNf4Numbers, nf4_scale_numbers(target_->device), out);
    } else {
      target_->implementation.fp8_rows(there, out);
    }
    EXPECT_TRUE(out.cpu().equal(dequantize(weight, dtype))) << rows << " x " << width;
  }
  std::optional<Target<DequantizeImplementation>> target_;
};

TEST_P(DequantizeKernels, WidenNf4) {
  for (const auto& [rows, width] :
       {std::pair<int64_t, int64_t>{1, 64}, {300, 832}, {64, 7}, {3, 64 * 257}}) {
    expect_the_cpu_s_bits(rows, width, WeightFormat::kNf4);
  }
}

TEST_P(DequantizeKernels, WidenRowsOfFp8) {
  for (const auto& [rows, width] :
       {std::pair<int64_t, int64_t>{1, 1}, {5, 7}, {33, 128}, {2, 3000}}) {
    expect_the_cpu_s_bits(rows, width, WeightFormat::kFp8Rows);
  }
}

INSTANTIATE_TEST_SUITE_P(, DequantizeKernels, kernel_params(), kernel_param_name);

}  // namespace
}  // namespace lorry::ops
