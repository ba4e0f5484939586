// From tensors to launches of the kernels in norm_rope_cuda.cu. Part of liblorry_cuda.so.
#include "ops/norm_rope_cuda.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <bit>

#include "ops/cuda_launch.h"
#include "ops/cuda_module_parts.h"

extern "C" const unsigned char lorry_fatbin_norm_rope[];

namespace lorry::ops {
namespace {

constexpr size_t kForward = 0, kBackward = 3;
constexpr int64_t kWarp = 32;

std::vector<std::string> kernel_names() {
  std::vector<std::string> names;
  for (const std::string operation : {"forward", "backward"}) {
    for (const std::string dtype : kKernelDtypes) {
      names.push_back("norm_rope_" + operation + "_" + dtype);
    }
  }
  return names;
}

/// Packs of a head that a thread takes, one or two that turn together.
int64_t items(const at::Tensor& joined, const HeadNorms& norms, int64_t half) {
  return (norms.head_dim - half) * static_cast<int64_t>(joined.element_size()) / kVectorBytes;
}

bool takes(const at::Tensor& joined, const HeadNorms& norms, const at::Tensor& cos) {
  const int64_t half = cos.size(-1);
  const int64_t n = kVectorBytes / static_cast<int64_t>(joined.element_size());
  return joined.stride(1) == 1 && items(joined, norms, half) <= kWarp &&
         n == pack_size(joined, {norms.head_dim, half, joined.stride(0)},
                        {joined.const_data_ptr(), norms.q_weight.const_data_ptr(),
                         norms.k_weight.const_data_ptr(), cos.const_data_ptr()});
}

at::Tensor launch(size_t operation, const at::Tensor& joined, const at::Tensor& grad,
                  const HeadNorms& norms, const at::Tensor& cos, const at::Tensor& sin) {
  at::Tensor out = at::empty(joined.sizes(), joined.options());
  if (out.numel() == 0) return out;
  const int64_t half = cos.size(-1), all = norms.heads + 2 * norms.kv_heads;
  NormRopeArguments args{};
  args.x = joined.const_data_ptr();
  args.grad = grad.defined() ? grad.const_data_ptr() : nullptr;
  args.out = out.data_ptr();
  args.q_weight = norms.q_weight.const_data_ptr();
  args.k_weight = norms.k_weight.const_data_ptr();
  args.cos = cos.const_data_ptr();
  args.sin = sin.const_data_ptr();
  args.x_row = joined.stride(0);
  args.rows = static_cast<int32_t>(joined.size(0));
  args.q_heads = static_cast<int32_t>(norms.heads);
  args.k_heads = static_cast<int32_t>(norms.kv_heads);
  args.all = static_cast<int32_t>(all);
  args.d = static_cast<int32_t>(norms.head_dim);
  args.half = static_cast<int32_t>(half);
  args.team = static_cast<int32_t>(
      std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(1, items(joined, norms, half)))));
  args.eps = static_cast<float>(norms.eps);
  args.offset = norms.kind == RmsNormKind::kOnePlusWeight ? 1.0f : 0.0f;
  args.rounds_quotient = norms.kind == RmsNormKind::kPlain ? 1 : 0;
  const int64_t teams = kNormRopeThreads / args.team;
  const int64_t blocks = (joined.size(0) * all + teams - 1) / teams;
  norm_rope_kernels().launch(operation + dtype_index(joined.scalar_type()), joined.get_device(),
                             {static_cast<unsigned>(blocks), kNormRopeThreads}, &args);
  return out;
}

at::Tensor forward(const at::Tensor& joined, const HeadNorms& norms, const at::Tensor& cos,
                   const at::Tensor& sin) {
  return launch(kForward, joined, {}, norms, cos, sin);
}

at::Tensor backward(const at::Tensor& grad, const at::Tensor& joined, const HeadNorms& norms,
                    const at::Tensor& cos, const at::Tensor& sin) {
  return launch(kBackward, joined, grad, norms, cos, sin);
}

}  // namespace

const CudaKernels& norm_rope_kernels() {
  static const CudaKernels kKernels(lorry_fatbin_norm_rope, kernel_names());
  return kKernels;
}

const NormRopeImplementation kCudaNormRope = {&takes, &forward, &backward};

}  // namespace lorry::ops
