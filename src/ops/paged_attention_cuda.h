// What paged_attention_cuda.cc hands to the kernels of paged_attention_cuda.cu, by value. Included
// by both compilers.
#pragma once

#include <cstdint>

namespace lorry::ops {

/// Threads of a block, and tokens of a sequence that it attends to.
constexpr int kPagedThreads = 128, kPagedSplit = 128;
constexpr int kPagedLeastDim = 32, kPagedMostDim = 256;  // sizes of a head

/// S sequences; a block for each sequence, each G query heads of one key/value head, and each split
/// of kPagedSplit tokens, splits being next to each other. A token is shared by `team` lanes.
struct PagedAttentionArguments {
  const void* q;              ///< (T, heads, d)
  const void *keys, *values;  ///< (blocks, block_tokens, kv_heads, d)
  void* out;                  ///< (T, heads, d)
  float* parts;               ///< (S, heads, splits, d + 2): sums, largest score, sum of powers
  const float* sinks;         ///< (heads), or null
  const int32_t *query_starts, *sequence_lengths, *block_table;
  int32_t table_width, block_tokens;
  int32_t heads, kv_heads, d, team;
  int32_t chunks;  ///< of G query heads of a key/value head
  int32_t splits;
  int32_t window;  ///< 0: none
  float scale, cap;
};

}  // namespace lorry::ops
