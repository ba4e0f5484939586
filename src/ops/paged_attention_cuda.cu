// Kernels of paged_attention.h for CUDA devices.
//
// Bound by memory: each key and value of a sequence is read once for all G query heads that share
// it. A token is shared by a team of lanes, 16 bytes each, so that a block reads kPagedThreads
// packs of keys and of values at a time, two tokens of each team in flight. Teams keep their own
// maximum and sums, which are put together at the end in a fixed order; so are the splits of a
// sequence, by a second kernel. Where a split begins depends on the place in the sequence alone.
#include "ops/paged_attention_cuda.h"

#include "ops/cuda_kernel.h"

namespace {

using namespace lorry::ops;          // NOLINT: this file is one name space of kernels
using namespace lorry::ops::device;  // NOLINT

constexpr int kPack = 8;      // numbers of 16 bits in 16 bytes
constexpr int kTogether = 2;  // tokens of a team whose loads are in flight
constexpr int kMostTeams = kPagedThreads * kPack / kPagedLeastDim;

/// What a sequence's query sees: the tokens [first, length).
struct Seen {
  int row, first, length;
  bool is_single;

  __device__ Seen(const PagedAttentionArguments& args, int sequence)
      : row(args.query_starts[sequence]), length(args.sequence_lengths[sequence]) {
    is_single = args.query_starts[sequence + 1] == row + 1;
    first = args.window > 0 && length > args.window ? length - args.window : 0;
  }
};

/// Scores of tokens so far for each of G heads, and the sum of values by their powers.
template <int G>
struct State {
  float top[G], sum[G], values[G][kPack];

  __device__ State() {
#pragma unroll
    for (int g = 0; g < G; ++g) {
      top[g] = -INFINITY;
      sum[g] = 0;
#pragma unroll
      for (int j = 0; j < kPack; ++j) values[g][j] = 0;
    }
  }

  template <typename T>
  __device__ void add(const float (&score)[G], const Pack<T, kPack>& value) {
#pragma unroll
    for (int g = 0; g < G; ++g) {
      const float now = fmaxf(top[g], score[g]);
      const float shrink = expf(top[g] - now), power = expf(score[g] - now);
      top[g] = now;
      sum[g] = sum[g] * shrink + power;
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        values[g][j] = values[g][j] * shrink + power * widen(value.values[j]);
      }
    }
  }
};

template <typename T, int G>
__device__ void scores_of(const PagedAttentionArguments& args, const float (&q)[G][kPack],
                          const Pack<T, kPack>& key, float (&score)[G]) {
#pragma unroll
  for (int g = 0; g < G; ++g) {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < kPack; ++j) sum += q[g][j] * widen(key.values[j]);
    for (int offset = args.team / 2; offset > 0; offset /= 2) {
      sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    }
    score[g] = args.cap > 0 ? args.cap * tanhf(sum / args.cap) : sum;
  }
}

/// Teams' states, to be put together.
template <int G>
struct Shared {
  float top[kMostTeams][G], sum[kMostTeams][G], weight[kMostTeams][G];  // by team
  float top_of_all[G];
  float values[G][kPagedThreads * kPack];  // by team and number
};

template <int G>
__device__ void put(Shared<G>& shared, const State<G>& state, int team, int lane, int team_size) {
#pragma unroll
  for (int g = 0; g < G; ++g) {
    if (lane == 0) {
      shared.top[team][g] = state.top[g];
      shared.sum[team][g] = state.sum[g];
    }
#pragma unroll
    for (int j = 0; j < kPack; ++j) {
      shared.values[g][(team * team_size + lane) * kPack + j] = state.values[g][j];
    }
  }
}

/// Each team's share: its powers were taken over a maximum of its own.
template <int G>
__device__ void weigh(Shared<G>& shared, int teams) {
  for (int i = threadIdx.x; i < teams * G; i += blockDim.x) {
    const int team = i / G, g = i % G;
    float top = -INFINITY;
    for (int t = 0; t < teams; ++t) top = fmaxf(top, shared.top[t][g]);
    const float mine = shared.top[team][g];
    shared.weight[team][g] = mine == -INFINITY ? 0.0f : expf(mine - top);
    if (team == 0) shared.top_of_all[g] = top;
  }
}

/// A head's sums over parts that each have a maximum of their own.
struct Joined {
  float top = -INFINITY, sum = 0, value = 0;

  __device__ void add(float other_top, float other_sum, float other_value) {
    if (other_top == -INFINITY) return;
    const float now = fmaxf(top, other_top);
    const float mine = expf(top - now), others = expf(other_top - now);
    sum = sum * mine + other_sum * others;
    value = value * mine + other_value * others;
    top = now;
  }
  __device__ float result(const PagedAttentionArguments& args, int head) {
    if (args.sinks != nullptr) add(args.sinks[head], 1.0f, 0.0f);
    return value / sum;
  }
};

template <typename T, int G>
__device__ void attend(const PagedAttentionArguments& args) {
  __shared__ Shared<G> shared;
  const int split = blockIdx.x % args.splits, rest = blockIdx.x / args.splits;
  const int chunk = rest % args.chunks, kv_head = rest / args.chunks % args.kv_heads;
  const int sequence = rest / args.chunks / args.kv_heads;
  const Seen seen(args, sequence);
  const int begin = split * kPagedSplit > seen.first ? split * kPagedSplit : seen.first;
  const int limit = (split + 1) * kPagedSplit;
  const int end = limit < seen.length ? limit : seen.length;
  if (!seen.is_single || begin >= end) return;  // the whole block

  const int group = args.heads / args.kv_heads, first_head = kv_head * group + chunk * G;
  const int heads = group - chunk * G < G ? group - chunk * G : G;
  const int team = threadIdx.x / args.team, lane = threadIdx.x % args.team;
  const int teams = blockDim.x / args.team, at = lane * kPack;
  const bool has_pack = at < args.d;
  float q[G][kPack];
#pragma unroll
  for (int g = 0; g < G; ++g) {
    Pack<T, kPack> pack = zeros<T, kPack>();
    const int64_t head = static_cast<int64_t>(seen.row) * args.heads + first_head + g;
    if (g < heads && has_pack)
      pack = load<kPack>(static_cast<const T*>(args.q) + head * args.d + at);
#pragma unroll
    for (int j = 0; j < kPack; ++j) q[g][j] = widen(pack.values[j]) * args.scale;
  }

  State<G> state;
  const int32_t* const table = args.block_table + static_cast<int64_t>(sequence) * args.table_width;
  for (int start = begin; start < end; start += teams * kTogether) {  // the same for all threads
    Pack<T, kPack> key[kTogether], value[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int token = start + i * teams + team;
      key[i] = value[i] = zeros<T, kPack>();
      if (token >= end || !has_pack) continue;
      const int64_t slot =
          static_cast<int64_t>(table[token / args.block_tokens]) * args.block_tokens +
          token % args.block_tokens;
      const int64_t place = (slot * args.kv_heads + kv_head) * args.d + at;
      key[i] = load<kPack>(static_cast<const T*>(args.keys) + place);
      value[i] = load<kPack>(static_cast<const T*>(args.values) + place);
    }
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      float score[G];
      scores_of<T, G>(args, q, key[i], score);
      if (start + i * teams + team < end) state.add(score, value[i]);
    }
  }

  put(shared, state, team, lane, args.team);
  __syncthreads();
  weigh(shared, teams);
  __syncthreads();
  for (int i = threadIdx.x; i < heads * args.d; i += blockDim.x) {
    const int g = i / args.d, number = i % args.d, head = first_head + g;
    Joined all{shared.top_of_all[g]};
    for (int t = 0; t < teams; ++t) {
      all.sum += shared.weight[t][g] * shared.sum[t][g];
      all.value += shared.weight[t][g] * shared.values[g][t * args.team * kPack + number];
    }
    if (args.splits == 1) {
      const int64_t to = (static_cast<int64_t>(seen.row) * args.heads + head) * args.d + number;
      static_cast<T*>(args.out)[to] = narrow<T>(all.result(args, head));
      continue;
    }
    const int64_t part = (static_cast<int64_t>(sequence) * args.heads + head) * args.splits + split;
    float* const to = args.parts + part * (args.d + 2);
    to[number] = all.value;
    if (number == 0) {
      to[args.d] = all.top;
      to[args.d + 1] = all.sum;
    }
  }
}

/// A block for each head of each sequence, a thread for each number.
template <typename T>
__device__ void join(const PagedAttentionArguments& args) {
  const int head = blockIdx.x % args.heads, sequence = blockIdx.x / args.heads;
  const int number = threadIdx.x;
  const Seen seen(args, sequence);
  if (!seen.is_single || number >= args.d) return;
  const int64_t part = (static_cast<int64_t>(sequence) * args.heads + head) * args.splits;
  Joined all;
  for (int split = seen.first / kPagedSplit; split * kPagedSplit < seen.length; ++split) {
    const float* const from = args.parts + (part + split) * (args.d + 2);
    all.add(from[args.d], from[args.d + 1], from[number]);
  }
  const int64_t to = (static_cast<int64_t>(seen.row) * args.heads + head) * args.d + number;
  static_cast<T*>(args.out)[to] = narrow<T>(all.result(args, head));
}

}  // namespace

// The names that paged_attention_cuda.cc looks up: paged_attention_{dtype}_{1, 4, 8} by G, and
// paged_attention_join_{dtype}.
#define LORRY_PAGED_KERNEL(dtype, T, G)                                              \
  extern "C" __global__ void __launch_bounds__(kPagedThreads)                        \
      paged_attention_##dtype##_##G(LORRY_ARGUMENTS(PagedAttentionArguments) args) { \
    attend<T, G>(args);                                                              \
  }
#define LORRY_PAGED_KERNELS(dtype, T)                                               \
  LORRY_PAGED_KERNEL(dtype, T, 1)                                                   \
  LORRY_PAGED_KERNEL(dtype, T, 4)                                                   \
  LORRY_PAGED_KERNEL(dtype, T, 8)                                                   \
  extern "C" __global__ void __launch_bounds__(kPagedMostDim)                       \
      paged_attention_join_##dtype(LORRY_ARGUMENTS(PagedAttentionArguments) args) { \
    join<T>(args);                                                                  \
  }

LORRY_PAGED_KERNELS(bfloat16, __nv_bfloat16)
LORRY_PAGED_KERNELS(float16, __half)
