#include "model/attention_view.h"

#include <ATen/ATen.h>

namespace lorry::model {

at::Tensor PackedAttention::context_lengths(at::Device device) const {
  std::vector<int64_t> lengths;
  const auto& ends = sequences_.cu_seqlens();
  for (size_t i = 1; i < ends.size(); ++i) {
    lengths.insert(lengths.end(), ends[i] - ends[i - 1], ends[i] - ends[i - 1]);
  }
  return at::tensor(lengths, at::kLong).to(device);
}

}  // namespace lorry::model
