// Attention of single new tokens over the paged cache.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "ops/attention.h"
#include "ops/cpu_loops.h"

namespace lorry::ops::cpu {
namespace {

// G query heads share one key/value head of D (keys) and E (values) numbers; L places are seen.

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
  return lane_sum(n, [&](int64_t i) { return a[i] * b[i]; });
}

/// What one group of heads needs beside its queries.
struct Group {
  int64_t begin, end;  // places that are seen
  int64_t heads, d, e;
  float softcap;
  const float* sinks;  // one a head; null: none
};

/// Turns scores into weights that sum to 1, or to less by what a sink takes.
LORRY_INLINE void softmax(float* scores, int64_t n, const float* sink) {
  float top = scores[0];
  for (int64_t i = 1; i < n; ++i) top = scores[i] > top ? scores[i] : top;
  if (sink) top = *sink > top ? *sink : top;
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
  float sum = sum_lanes(lanes);
  if (sink) sum += exponential(*sink - top);
  const float scale = 1.0f / sum;
  for (int64_t k = 0; k < n; ++k) scores[k] *= scale;
}

/// q: (G, D) float32, already scaled; scores: (G, L); row: max(D, E) numbers of scratch; out: (G,
/// E).
template <typename T>
LORRY_INLINE void attend_group(const float* q, const Pages<T>& keys, const Pages<T>& values,
                               const Group& group, float* scores, float* row, float* out) {
  const int64_t begin = group.begin, length = group.end - begin;
  for (int64_t p = begin; p < group.end; ++p) {
    const T* key = keys.place(p);
    for (int64_t i = 0; i < group.d; ++i) row[i] = widen(key[i]);
    for (int64_t g = 0; g < group.heads; ++g) {
      scores[g * length + p - begin] = dot(q + g * group.d, row, group.d);
    }
  }
  if (group.softcap > 0) {
    for (int64_t i = 0; i < group.heads * length; ++i) {
      scores[i] = group.softcap * std::tanh(scores[i] / group.softcap);
    }
  }
  for (int64_t g = 0; g < group.heads; ++g) {
    softmax(scores + g * length, length, group.sinks ? group.sinks + g : nullptr);
  }
  std::fill(out, out + group.heads * group.e, 0.0f);
  for (int64_t p = begin; p < group.end; ++p) {
    const T* value = values.place(p);
    for (int64_t i = 0; i < group.e; ++i) row[i] = widen(value[i]);
    for (int64_t g = 0; g < group.heads; ++g) {
      const float weight = scores[g * length + p - begin];
      float* sum = out + g * group.e;
      for (int64_t i = 0; i < group.e; ++i) sum[i] += weight * row[i];
    }
  }
}

LORRY_CPU_CLONES void run(const float* q, const Pages<float>& keys, const Pages<float>& values,
                          const Group& group, float* scores, float* row, float* out) {
  attend_group(q, keys, values, group, scores, row, out);
}
LORRY_CPU_CLONES void run(const float* q, const Pages<Bf16>& keys, const Pages<Bf16>& values,
                          const Group& group, float* scores, float* row, float* out) {
  attend_group(q, keys, values, group, scores, row, out);
}

template <typename T>
void attend_typed(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                  const std::vector<PagedRow>& rows, const AttentionParams& params,
                  const float* sinks, at::Tensor& out) {
  const int64_t heads = q.size(1), d = q.size(2), kv_heads = keys.size(2), e = values.size(3);
  const int64_t g_count = heads / kv_heads, block_tokens = keys.size(1);
  const auto scale = static_cast<float>(params.scale);

  const auto task = [&](int64_t index, std::vector<float>& scratch) {
    const PagedRow& row = rows[index / kv_heads];
    const int64_t head = index % kv_heads, first = row.row * heads + head * g_count;
    scratch.resize(g_count * (row.end - row.begin + d + e) + std::max(d, e));
    float* q_wide = scratch.data();
    float* sums = q_wide + g_count * d;
    float* line = sums + g_count * e;
    float* scores = line + std::max(d, e);
    const T* q_data = data<T>(q) + first * d;
    for (int64_t i = 0; i < g_count * d; ++i) q_wide[i] = widen(q_data[i]) * scale;
    const Pages<T> k{data<T>(keys) + head * d, row.blocks, block_tokens, kv_heads * d};
    const Pages<T> v{data<T>(values) + head * e, row.blocks, block_tokens, kv_heads * e};
    const Group group{row.begin,
                      row.end,
                      g_count,
                      d,
                      e,
                      static_cast<float>(params.softcap),
                      sinks ? sinks + head * g_count : nullptr};
    run(q_wide, k, v, group, scores, line, sums);
    T* out_data = mutable_data<T>(out) + first * e;
    for (int64_t i = 0; i < g_count * e; ++i) out_data[i] = narrow<T>(sums[i]);
  };
  const auto tasks = static_cast<int64_t>(rows.size()) * kv_heads;
  int64_t keys_seen = 0;
  for (const PagedRow& row : rows) keys_seen += row.end - row.begin;
  const int64_t numbers = std::max<int64_t>(1, keys_seen * heads * (d + e) / tasks);  // of a task
  const int64_t grain = std::max<int64_t>(1, kTaskGrain / numbers);
  at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch;
    for (int64_t i = begin; i < end; ++i) task(i, scratch);
  });
}

}  // namespace

void attend_paged(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                  const std::vector<PagedRow>& rows, const AttentionParams& params,
                  at::Tensor& out) {
  const at::Tensor sinks =
      params.sinks.defined() ? params.sinks.to(at::kFloat).contiguous() : at::Tensor();
  const float* sink_data = sinks.defined() ? sinks.const_data_ptr<float>() : nullptr;
  dispatch(q, [&](auto type) {
    attend_typed<decltype(type)>(q, keys, values, rows, params, sink_data, out);
  });
}

}  // namespace lorry::ops::cpu
