// From tensors to launches of the kernels in residual_rms_norm_cuda.cu. Part of liblorry_cuda.so.
#include "ops/residual_rms_norm_cuda.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>

#include "ops/cuda_launch.h"
#include "ops/cuda_module_parts.h"
#include "ops/residual_rms_norm.h"

extern "C" const unsigned char lorry_fatbin_residual_rms_norm[];

namespace lorry::ops {
namespace {

constexpr int64_t kWarp = 32;

// The kernels in the order of their indices: dtype, then width, then layout; the sums of d_weight
// after all others.
constexpr size_t kForward = 0, kBackward = 12, kReduce = 24;

std::vector<std::string> kernel_names() {
  std::vector<std::string> names;
  for (const std::string operation : {"forward", "backward"}) {
    for (const std::string dtype : kKernelDtypes) {
      for (const std::string width : {"narrow", "wide"}) {
        for (const std::string layout : {"scalar", "vector"}) {
          names.push_back("rms_norm_" + operation + "_" + dtype + "_" + width + "_" + layout);
        }
      }
    }
  }
  for (const std::string dtype : kKernelDtypes) names.push_back("rms_norm_reduce_" + dtype);
  return names;
}

/// Which kernel of its operation serves rows of this width, and how many threads share a row.
struct RowShape {
  size_t kernel;
  int64_t team, threads, rows_a_block;
};

RowShape shape_of(const at::Tensor& x, std::initializer_list<const void*> pointers) {
  const int64_t width = x.size(-1), n = pack_size(x, {width}, pointers), packs = width / n;
  const bool wide = packs > kWarp;
  const size_t kernel = 4 * dtype_index(x.scalar_type()) + (wide ? 2 : 0) + (n > 1 ? 1 : 0);
  if (!wide) {
    const auto team = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(packs)));
    return {kernel, team, kNarrowThreads, kNarrowThreads / team};
  }
  const int64_t threads = std::min<int64_t>((packs + kWarp - 1) / kWarp * kWarp, kWideThreads);
  return {kernel, threads, threads, 1};
}

template <typename Arguments>
void set_factor(Arguments& args, double eps, RmsNormKind kind) {
  args.eps = static_cast<float>(eps);
  args.offset = kind == RmsNormKind::kOnePlusWeight ? 1.0f : 0.0f;
  args.rounds_quotient = kind == RmsNormKind::kPlain ? 1 : 0;
}

const void* pointer(const at::Tensor& x) { return x.defined() ? x.const_data_ptr() : nullptr; }

void launch(size_t kernel, const at::Tensor& x, CudaKernels::Shape shape, void* arguments) {
  residual_rms_norm_kernels().launch(kernel, static_cast<int>(x.get_device()), shape, arguments);
}

ResidualRmsNorm forward(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight,
                        double eps, RmsNormKind kind) {
  const ResidualRmsNorm out{residual.defined() ? at::empty_like(x) : at::Tensor(),
                            at::empty_like(x)};
  const int64_t width = x.size(-1), rows = x.numel() / width;
  if (rows == 0) return out;
  RmsNormForwardArguments args{};
  args.x = pointer(x);
  args.residual = pointer(residual);
  args.weight = pointer(weight);
  args.sum = out.sum.defined() ? out.sum.data_ptr() : nullptr;
  args.normed = out.normed.data_ptr();
  args.rows = rows;
  args.width = static_cast<int32_t>(width);
  set_factor(args, eps, kind);
  const RowShape shape = shape_of(x, {args.x, args.residual, args.weight, args.sum, args.normed});
  args.team = static_cast<int32_t>(shape.team);
  const int64_t blocks = (rows + shape.rows_a_block - 1) / shape.rows_a_block;
  launch(kForward + shape.kernel, x,
         {static_cast<unsigned>(blocks), static_cast<unsigned>(shape.threads)}, &args);
  return out;
}

/// Blocks of the backward pass. Each that sums d_weight writes a row of parts: only so many as fill
/// the device, about 1024 threads on each multiprocessor, each block walking over many rows.
int64_t backward_blocks(const RowShape& shape, int64_t rows, int device, bool wants_weight) {
  const int64_t blocks = (rows + shape.rows_a_block - 1) / shape.rows_a_block;
  if (!wants_weight) return blocks;
  constexpr int64_t kThreads = 1024;
  return std::min(blocks, multiprocessors(device) * std::max<int64_t>(kThreads / shape.threads, 1));
}

at::Tensor reduce(const at::Tensor& parts, const at::Tensor& weight) {
  at::Tensor d_weight = at::empty_like(weight);
  RmsNormReduceArguments args{};
  args.parts = parts.const_data_ptr<float>();
  args.d_weight = d_weight.data_ptr();
  args.count = static_cast<int32_t>(parts.size(0));
  args.width = static_cast<int32_t>(parts.size(1));
  const int64_t blocks = (parts.size(1) + kReduceColumns - 1) / kReduceColumns;
  launch(kReduce + dtype_index(weight.scalar_type()), weight,
         {static_cast<unsigned>(blocks), kReduceColumns, kReduceRows}, &args);
  return d_weight;
}

RmsNormGradients backward(const at::Tensor& sum, const at::Tensor& weight, const at::Tensor& d_sum,
                          const at::Tensor& d_normed, double eps, RmsNormKind kind,
                          bool wants_weight) {
  const at::Tensor d_x = at::empty_like(sum);
  const int64_t width = sum.size(-1), rows = sum.numel() / width;
  if (rows == 0) return {d_x, wants_weight ? at::zeros_like(weight) : at::Tensor()};
  RmsNormBackwardArguments args{};
  args.sum = pointer(sum);
  args.weight = pointer(weight);
  args.d_sum = pointer(d_sum);
  args.d_normed = pointer(d_normed);
  args.d_x = d_x.data_ptr();
  args.rows = rows;
  args.width = static_cast<int32_t>(width);
  set_factor(args, eps, kind);
  const RowShape shape =
      shape_of(sum, {args.sum, args.weight, args.d_sum, args.d_normed, args.d_x});
  args.team = static_cast<int32_t>(shape.team);
  const int64_t blocks = backward_blocks(shape, rows, sum.get_device(), wants_weight);
  at::Tensor parts;
  if (wants_weight) {
    const int64_t parts_a_block = shape.rows_a_block == 1 ? 1 : shape.threads / kWarp;
    parts = at::empty({blocks * parts_a_block, width}, weight.options().dtype(at::kFloat));
    args.d_weight_parts = parts.data_ptr<float>();
  }
  launch(kBackward + shape.kernel, sum,
         {static_cast<unsigned>(blocks), static_cast<unsigned>(shape.threads)}, &args);
  return {d_x, wants_weight ? reduce(parts, weight) : at::Tensor()};
}

}  // namespace

const CudaKernels& residual_rms_norm_kernels() {
  static const CudaKernels kKernels(lorry_fatbin_residual_rms_norm, kernel_names());
  return kKernels;
}

const RmsNormImplementation kCudaRmsNorm = {&forward, &backward};

}  // namespace lorry::ops
