#include "model/attention_view.h"

#include <ATen/ATen.h>

namespace lorry::model {

at::Tensor AttentionView::attend_joined(int64_t layer, const ops::AttentionParams& params,
                                        const at::Tensor& qkv, int64_t heads, int64_t kv_heads) {
  const auto parts =
      qkv.unflatten(1, {heads + 2 * kv_heads, -1}).split_with_sizes({heads, kv_heads, kv_heads}, 1);
  return attend(layer, params, parts[0].contiguous(), parts[1].contiguous(), parts[2].contiguous());
}

at::Tensor PackedAttention::context_lengths(at::Device device) const {
  std::vector<int64_t> lengths;
  const auto& ends = sequences_.cu_seqlens();
  for (size_t i = 1; i < ends.size(); ++i) {
    lengths.insert(lengths.end(), ends[i] - ends[i - 1], ends[i] - ends[i - 1]);
  }
  return at::tensor(lengths, at::kLong).to(device);
}

}  // namespace lorry::model
