// From tensors to launches of the kernels in rope_cuda.cu. Part of liblorry_cuda.so.
#include "ops/rope_cuda.h"

#include <ATen/core/Tensor.h>

#include "ops/cuda_launch.h"
#include "ops/cuda_module_parts.h"

extern "C" const unsigned char lorry_fatbin_rope[];

namespace lorry::ops {
namespace {

void rotate(const at::Tensor& x, const at::Tensor& out, const at::Tensor& cos,
            const at::Tensor& sin, float sign) {
  if (x.numel() == 0) return;
  const int64_t half = cos.size(-1);
  RopeArguments args{};
  args.x = x.const_data_ptr();
  args.out = out.data_ptr();
  args.cos = cos.const_data_ptr();
  args.sin = sin.const_data_ptr();
  args.x_row = x.stride(0), args.x_head = x.stride(1);
  args.out_row = out.stride(0), args.out_head = out.stride(1);
  args.rows = static_cast<int32_t>(x.size(0));
  args.heads = static_cast<int32_t>(x.size(1));
  args.half = static_cast<int32_t>(half);
  args.rest = static_cast<int32_t>(args.x == args.out ? 0 : x.size(2) - 2 * half);
  args.sign = sign;
  const int64_t n =
      pack_size(x, {half, args.rest, args.x_row, args.x_head, args.out_row, args.out_head},
                {args.x, args.out, args.cos, args.sin});
  const int64_t packs = x.size(0) * x.size(1) * (half + args.rest) / n;
  rope_kernels().launch(layout_kernel(x.scalar_type(), n), x.get_device(), flat_shape(packs),
                        &args);
}

}  // namespace

const CudaKernels& rope_kernels() {
  static const CudaKernels kKernels(lorry_fatbin_rope, layout_kernel_names({"rope"}));
  return kKernels;
}

const RopeImplementation kCudaRope = {&rotate};

}  // namespace lorry::ops
