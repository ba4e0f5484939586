// From tensors to launches of the kernels in cross_entropy_cuda.cu. Part of liblorry_cuda.so.
#include "ops/cross_entropy_cuda.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "ops/cuda_launch.h"
#include "ops/cuda_module_parts.h"

extern "C" const unsigned char lorry_fatbin_cross_entropy[];

namespace lorry::ops {
namespace {

at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& targets, double scale,
                         const LogitTransform& transform) {
  const int64_t rows = logits.size(0), width = logits.size(1);
  const at::Tensor losses = at::empty({rows}, logits.options().dtype(at::kDouble));
  if (rows == 0) return losses.sum();
  CrossEntropyArguments args{};
  args.logits = logits.data_ptr();
  args.targets = targets.const_data_ptr<int64_t>();
  args.losses = losses.data_ptr<double>();
  args.row = logits.stride(0);
  args.width = static_cast<int32_t>(width);
  args.scale = static_cast<float>(scale);
  args.logit_scale = static_cast<float>(transform.scale);
  args.cap = static_cast<float>(transform.softcap);
  constexpr int64_t kWarp = 32;
  const int64_t n = pack_size(logits, {width, args.row}, {args.logits});
  const int64_t packs = width / n;
  const int64_t threads = std::min<int64_t>((packs + kWarp - 1) / kWarp * kWarp, kLossThreads);
  cross_entropy_kernels().launch(layout_kernel(logits.scalar_type(), n), logits.get_device(),
                                 {static_cast<unsigned>(rows), static_cast<unsigned>(threads)},
                                 &args);
  return losses.sum();
}

}  // namespace

const CudaKernels& cross_entropy_kernels() {
  static const CudaKernels kKernels(lorry_fatbin_cross_entropy,
                                    layout_kernel_names({"cross_entropy"}));
  return kKernels;
}

const CrossEntropyImplementation kCudaCrossEntropy = {&cross_entropy};

}  // namespace lorry::ops
