// Attention of single new tokens over the paged cache.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "model/cpu_kernels.h"
#include "model/cpu_math.h"

namespace lorry::model::cpu {
namespace {

// G query heads share one key/value head of D numbers; L places are seen.

constexpr int64_t kLanes = 16;

/// Where the keys or values of one head lie: place p at base + place(p).
template <typename T>
struct Pages {
  const T* base;  // of this head, in block 0
  const int32_t* blocks;
  int64_t block_tokens, stride;  // numbers from one place to the next within a block
  LORRY_INLINE const T* place(int64_t p) const {
    return base + (blocks[p / block_tokens] * block_tokens + p % block_tokens) * stride;
  }
};

LORRY_INLINE float dot(const float* a, const float* b, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += a[i + j] * b[i + j];
  }
  for (; i < n; ++i) lanes[0] += a[i] * b[i];
  float sum = 0;
  for (int64_t j = 0; j < kLanes; ++j) sum += lanes[j];
  return sum;
}

/// Turns scores into weights that sum to 1.
LORRY_INLINE void softmax(float* scores, int64_t n) {
  float top = scores[0];
  for (int64_t i = 1; i < n; ++i) top = scores[i] > top ? scores[i] : top;
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      scores[i + j] = exponential(scores[i + j] - top);
      lanes[j] += scores[i + j];
    }
  }
  for (; i < n; ++i) {
    scores[i] = exponential(scores[i] - top);
    lanes[0] += scores[i];
  }
  float sum = 0;
  for (int64_t j = 0; j < kLanes; ++j) sum += lanes[j];
  const float scale = 1.0f / sum;
  for (int64_t k = 0; k < n; ++k) scores[k] *= scale;
}

/// q, out: (G, D) float32, q already scaled; scores: (G, L); row: D numbers of scratch.
template <typename T>
LORRY_INLINE void attend_group(const float* q, const Pages<T>& keys, const Pages<T>& values,
                               int64_t begin, int64_t end, int64_t g_count, int64_t d,
                               float* scores, float* row, float* out) {
  const int64_t length = end - begin;
  for (int64_t p = begin; p < end; ++p) {
    const T* key = keys.place(p);
    for (int64_t i = 0; i < d; ++i) row[i] = widen(key[i]);
    for (int64_t g = 0; g < g_count; ++g) scores[g * length + p - begin] = dot(q + g * d, row, d);
  }
  for (int64_t g = 0; g < g_count; ++g) softmax(scores + g * length, length);
  std::fill(out, out + g_count * d, 0.0f);
  for (int64_t p = begin; p < end; ++p) {
    const T* value = values.place(p);
    for (int64_t i = 0; i < d; ++i) row[i] = widen(value[i]);
    for (int64_t g = 0; g < g_count; ++g) {
      const float weight = scores[g * length + p - begin];
      float* sum = out + g * d;
      for (int64_t i = 0; i < d; ++i) sum[i] += weight * row[i];
    }
  }
}

LORRY_CPU_CLONES void attend_group_any(const float* q, const Pages<float>& keys,
                                       const Pages<float>& values, int64_t begin, int64_t end,
                                       int64_t g_count, int64_t d, float* scores, float* row,
                                       float* out) {
  attend_group(q, keys, values, begin, end, g_count, d, scores, row, out);
}
LORRY_CPU_CLONES void attend_group_any_bf16(const float* q, const Pages<Bf16>& keys,
                                            const Pages<Bf16>& values, int64_t begin, int64_t end,
                                            int64_t g_count, int64_t d, float* scores, float* row,
                                            float* out) {
  attend_group(q, keys, values, begin, end, g_count, d, scores, row, out);
}

template <typename T>
void attend_typed(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                  const std::vector<DecodeRow>& rows, at::Tensor& out) {
  const int64_t heads = q.size(1), d = q.size(2), kv_heads = keys.size(2);
  const int64_t g_count = heads / kv_heads, block_tokens = keys.size(1), stride = kv_heads * d;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  const auto* q_data = static_cast<const T*>(q.const_data_ptr());
  const auto* key_data = static_cast<const T*>(keys.const_data_ptr());
  const auto* value_data = static_cast<const T*>(values.const_data_ptr());
  auto* out_data = static_cast<T*>(out.data_ptr());

  const auto task = [&](int64_t index, std::vector<float>& scratch) {
    const DecodeRow& row = rows[index / kv_heads];
    const int64_t head = index % kv_heads;
    scratch.resize(g_count * (row.end - row.begin) + (2 * g_count + 1) * d);
    float* q_wide = scratch.data();
    float* sums = q_wide + g_count * d;
    float* line = sums + g_count * d;
    float* scores = line + d;
    const int64_t first = (row.row * heads + head * g_count) * d;
    for (int64_t i = 0; i < g_count * d; ++i) q_wide[i] = widen(q_data[first + i]) * scale;
    const Pages<T> k{key_data + head * d, row.blocks, block_tokens, stride};
    const Pages<T> v{value_data + head * d, row.blocks, block_tokens, stride};
    if constexpr (std::is_same_v<T, float>) {
      attend_group_any(q_wide, k, v, row.begin, row.end, g_count, d, scores, line, sums);
    } else {
      attend_group_any_bf16(q_wide, k, v, row.begin, row.end, g_count, d, scores, line, sums);
    }
    for (int64_t i = 0; i < g_count * d; ++i) out_data[first + i] = narrow<T>(sums[i]);
  };
  const auto tasks = static_cast<int64_t>(rows.size()) * kv_heads;
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch;
    for (int64_t i = begin; i < end; ++i) task(i, scratch);
  });
}

}  // namespace

void attend_paged(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                  const std::vector<DecodeRow>& rows, at::Tensor& out) {
  if (q.scalar_type() == at::kFloat) {
    attend_typed<float>(q, keys, values, rows, out);
  } else {
    attend_typed<Bf16>(q, keys, values, rows, out);
  }
}

}  // namespace lorry::model::cpu
