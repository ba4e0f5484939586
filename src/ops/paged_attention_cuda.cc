// From tensors to launches of the kernels in paged_attention_cuda.cu. Part of liblorry_cuda.so.
#include "ops/paged_attention_cuda.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <bit>

#include "ops/cuda_launch.h"
#include "ops/cuda_module_parts.h"

extern "C" const unsigned char lorry_fatbin_paged_attention[];

namespace lorry::ops {
namespace {

// Query heads that a block takes together, and how many kernels come before those of a dtype.
constexpr int64_t kTogether[] = {1, 4, 8};
constexpr size_t kKernels = std::size(kTogether) + 1;

std::vector<std::string> kernel_names() {
  std::vector<std::string> names;
  for (const std::string dtype : {"bfloat16", "float16"}) {
    for (const int64_t heads : kTogether) {
      names.push_back("paged_attention_" + dtype + "_" + std::to_string(heads));
    }
    names.push_back("paged_attention_join_" + dtype);
  }
  return names;
}

bool takes(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values) {
  const at::ScalarType dtype = q.scalar_type();
  const int64_t d = q.size(2);
  const bool is_narrow = dtype == at::kBFloat16 || dtype == at::kHalf;
  const bool fits = d % (kVectorBytes / 2) == 0 && d >= kPagedLeastDim && d <= kPagedMostDim;
  return is_narrow && fits && keys.scalar_type() == dtype && values.scalar_type() == dtype &&
         values.size(3) == d && keys.is_contiguous() && values.is_contiguous();
}

void attend(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
            const StepInputs& inputs, const AttentionParams& params, const at::Tensor& out) {
  const int64_t heads = q.size(1), kv_heads = keys.size(2), d = q.size(2);
  const int64_t group = heads / kv_heads;
  size_t kernel = 0;
  while (kernel + 1 < std::size(kTogether) && kTogether[kernel] < group) ++kernel;
  const int64_t chunks = (group + kTogether[kernel] - 1) / kTogether[kernel];
  const int64_t splits = (inputs.max_context + kPagedSplit - 1) / kPagedSplit;
  at::Tensor parts, sinks;
  PagedAttentionArguments args{};
  args.q = q.const_data_ptr();
  args.keys = keys.const_data_ptr();
  args.values = values.const_data_ptr();
  args.out = out.data_ptr();
  if (splits > 1) {
    parts = at::empty({inputs.sequences, heads, splits, d + 2}, q.options().dtype(at::kFloat));
    args.parts = parts.data_ptr<float>();
  }
  if (params.sinks.defined()) {
    sinks = params.sinks.to(at::kFloat).contiguous();
    args.sinks = sinks.const_data_ptr<float>();
  }
  args.query_starts = inputs.query_starts.const_data_ptr<int32_t>();
  args.sequence_lengths = inputs.sequence_lengths.const_data_ptr<int32_t>();
  args.block_table = inputs.block_table.const_data_ptr<int32_t>();
  args.table_width = static_cast<int32_t>(inputs.block_table.size(1));
  args.block_tokens = static_cast<int32_t>(inputs.block_tokens);
  args.heads = static_cast<int32_t>(heads);
  args.kv_heads = static_cast<int32_t>(kv_heads);
  args.d = static_cast<int32_t>(d);
  args.team = static_cast<int32_t>(std::bit_ceil(static_cast<uint64_t>(d * 2 / kVectorBytes)));
  args.chunks = static_cast<int32_t>(chunks);
  args.splits = static_cast<int32_t>(splits);
  args.window = static_cast<int32_t>(params.window);
  args.scale = static_cast<float>(params.scale);
  args.cap = static_cast<float>(params.softcap);
  const size_t first = q.scalar_type() == at::kBFloat16 ? 0 : kKernels;
  const int64_t blocks = inputs.sequences * kv_heads * chunks * splits;
  paged_attention_kernels().launch(first + kernel, q.get_device(),
                                   {static_cast<unsigned>(blocks), kPagedThreads}, &args);
  if (splits == 1) return;
  paged_attention_kernels().launch(
      first + kKernels - 1, q.get_device(),
      {static_cast<unsigned>(inputs.sequences * heads), static_cast<unsigned>(d)}, &args);
}

}  // namespace

const CudaKernels& paged_attention_kernels() {
  static const CudaKernels kKernels(lorry_fatbin_paged_attention, kernel_names());
  return kKernels;
}

const PagedAttentionImplementation kCudaPagedAttention = {&takes, &attend};

}  // namespace lorry::ops
