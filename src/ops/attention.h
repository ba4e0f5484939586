// Causal attention: over packed sequences, over one sequence's cache, over single tokens of a paged
// cache. Model code asks an AttentionView (model/attention_view.h); these do the arithmetic.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace lorry::ops {

// T tokens of a packed step, n new tokens of one sequence of L in all; H query heads, K key/value
// heads (H is a multiple of K), D numbers a query and key head, E numbers a value head.

/// What an attention does beside softmax(q k^T scale) v.
struct AttentionParams {
  double scale = 1.0;  ///< on q k^T; 1/sqrt(D) for most families
  double softcap = 0;  ///< c: scores become c tanh(score / c) (Gemma 2); 0: none
  int64_t window = 0;  ///< tokens that a query sees, itself and those before it; 0: all
  at::Tensor sinks;    ///< (H) logits that take a share of the softmax and give nothing (GPT-OSS)

  /// Nothing that libtorch's fused attention lacks.
  bool is_fused() const { return softcap == 0 && !sinks.defined(); }
};

/// Masks of one step by (new tokens, length, window), shared by the layers. Not thread-safe.
class MaskCache {
 public:
  /// (n, L), true where new token i, at place L - n + i, may look: places up to its own, `window`
  /// back.
  const at::Tensor& get(int64_t n, int64_t length, int64_t window, at::Device device);

 private:
  std::map<std::pair<std::pair<int64_t, int64_t>, int64_t>, at::Tensor> masks_;
};

/// One sequence whose last n tokens are the queries.
/// q: (n, H, D); k: (L, K, D); v: (L, K, E), one dtype. Returns (n, H, E) in it. Differentiable.
at::Tensor attend_one(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      const AttentionParams& params, MaskCache& masks);

/// Concatenated sequences; attention never crosses a boundary. Holds what the layers of a step
/// share. Not thread-safe.
class PackedSequences {
 public:
  /// cu_seqlens: 0, then the end of each sequence; the last is T.
  /// cu_seqlens_device: the same as int32 on the GPU; undefined: copied when first needed.
  explicit PackedSequences(std::vector<int64_t> cu_seqlens, at::Tensor cu_seqlens_device = {});
  /// q: (T, H, D); k: (T, K, D); v: (T, K, E). Returns (T, H, E) in q's dtype. Differentiable.
  at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const AttentionParams& params);
  /// The same of queries, keys and values side by side in each row: (T, (H + 2 K) D), D = E.
  at::Tensor attend_joined(const at::Tensor& qkv, int64_t heads, int64_t kv_heads,
                           const AttentionParams& params);
  const std::vector<int64_t>& cu_seqlens() const { return *cu_seqlens_; }

 private:
  at::Tensor attend_each(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const AttentionParams& params);
  at::Tensor attend_cuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const AttentionParams& params);

  std::shared_ptr<const std::vector<int64_t>> cu_seqlens_;  // shared with backward passes
  int64_t max_seqlen_ = 0;
  at::Tensor cu_seqlens_device_;  // int32
  MaskCache masks_;
};

namespace cpu {

/// One new token of a sequence: row `row` of q sees the places [begin, end) of `blocks`.
struct PagedRow {
  int64_t row = 0;
  const int32_t* blocks = nullptr;
  int64_t begin = 0, end = 0;
};

/// q: (T, H, D); keys: (blocks, tokens a block, K, D); values: (blocks, tokens a block, K, E), all
/// contiguous and of one dtype, float32 or bfloat16. Writes the rows of `out` (T, H, E) that `rows`
/// names. Scores and sums are float32. `params.window` is the caller's business (PagedRow::begin).
void attend_paged(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                  const std::vector<PagedRow>& rows, const AttentionParams& params,
                  at::Tensor& out);

}  // namespace cpu
}  // namespace lorry::ops
