// Attention over packed sequences on a CPU: libtorch's fused kernel, a sequence at a time, as one
// node of autograd's graph.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "ops/attention.h"

namespace lorry::ops::cpu {

using Ends = std::shared_ptr<const std::vector<int64_t>>;  ///< cu_seqlens

/// Whether the functions below take such queries and values, in sequences of at most `longest`.
bool attends_packed(const at::Tensor& q, const at::Tensor& v, const AttentionParams& params,
                    int64_t longest);

/// As PackedSequences::attend and attend_joined. Keys and values are not repeated for their group
/// of heads, and gradients are written where they belong, not added over all sequences.
at::Tensor attend_packed(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         double scale, const Ends& ends);
at::Tensor attend_packed_joined(const at::Tensor& qkv, int64_t heads, int64_t kv_heads,
                                double scale, const Ends& ends);

}  // namespace lorry::ops::cpu
