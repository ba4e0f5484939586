// From tensors to launches of the kernels in dequantize_cuda.cu. Part of liblorry_cuda.so.
#include "ops/dequantize_cuda.h"

#include <ATen/core/Tensor.h>

#include "ops/cuda_launch.h"
#include "ops/cuda_module_parts.h"

extern "C" const unsigned char lorry_fatbin_dequantize[];

namespace lorry::ops {
namespace {

constexpr size_t kNf4 = 0, kFp8 = 3;

std::vector<std::string> kernel_names() {
  std::vector<std::string> names;
  for (const std::string dtype : kKernelDtypes) names.push_back("widen_nf4_" + dtype);
  for (const std::string& name : layout_kernel_names({"widen_fp8"})) names.push_back(name);
  return names;
}

/// A view may begin anywhere.
at::Tensor aligned(const at::Tensor& x) {
  return x.is_contiguous() && is_aligned(x.const_data_ptr())
             ? x
             : x.clone(at::MemoryFormat::Contiguous);
}

void nf4(const Weight& weight, const float* numbers, const at::Tensor& scale_numbers,
         const at::Tensor& out) {
  if (out.numel() == 0) return;
  const at::Tensor codes = aligned(weight.data);
  WidenNf4Arguments args{};
  args.codes = codes.const_data_ptr<uint8_t>();
  args.scales = weight.scales.const_data_ptr<uint8_t>();
  args.second_scales = weight.second_scales.const_data_ptr<float>();
  args.scale_numbers = scale_numbers.const_data_ptr<float>();
  args.out = out.data_ptr();
  args.numbers = out.numel();
  std::copy_n(numbers, 16, args.table);
  dequantize_kernels().launch(kNf4 + dtype_index(out.scalar_type()), out.get_device(),
                              flat_shape(out.numel() / kDequantizePack), &args);
}

void fp8_rows(const Weight& weight, const at::Tensor& out) {
  if (out.numel() == 0) return;
  const at::Tensor codes = aligned(weight.data), scales = weight.scales.contiguous();
  const int64_t n = weight.in % kDequantizePack == 0 ? kDequantizePack : 1;
  WidenFp8Arguments args{};
  args.codes = static_cast<const uint8_t*>(codes.const_data_ptr());
  args.scales = scales.const_data_ptr<float>();
  args.out = out.data_ptr();
  args.numbers = out.numel();
  args.width = static_cast<int32_t>(weight.in);
  dequantize_kernels().launch(kFp8 + layout_kernel(out.scalar_type(), n), out.get_device(),
                              flat_shape(out.numel() / n), &args);
}

}  // namespace

const CudaKernels& dequantize_kernels() {
  static const CudaKernels kKernels(lorry_fatbin_dequantize, kernel_names());
  return kKernels;
}

const DequantizeImplementation kCudaDequantize = {&nf4, &fp8_rows};

}  // namespace lorry::ops
