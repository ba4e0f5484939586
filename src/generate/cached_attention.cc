#include "generate/cached_attention.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "ops/cpu_kernels.h"
#include "ops/cuda_module.h"

namespace lorry::generate {
namespace {

// n new tokens of one sequence of L tokens in all; K key/value heads, H query heads, D head size.

constexpr int64_t kBlock = KvCache::kBlockTokens;
/// New tokens of one sequence that read the cache each for itself: cheaper than to gather it, and
/// with the numbers that they get one by one.
constexpr int64_t kMostRowsApart = 8;

int64_t new_tokens(const SequenceStep& step) { return static_cast<int64_t>(step.tokens.size()); }
int64_t length_after(const SequenceStep& step) { return step.cache->length + new_tokens(step); }

/// One host buffer that holds the fields of StepInputs one after the other: first those of int64,
/// then those of int32, so that each begins at a multiple of its own size.
class InputBuffer {
 public:
  InputBuffer(int64_t longs, int64_t ints, at::Device device) : device_(device), ints_at_(longs) {
    const auto options = at::TensorOptions().dtype(at::kLong).pinned_memory(device.is_cuda());
    host_ = at::empty({longs + (ints + 1) / 2}, options);
    longs_ = host_.mutable_data_ptr<int64_t>();
    ints_ = reinterpret_cast<int32_t*>(longs_ + longs);
  }
  int64_t* longs() { return longs_; }
  int32_t* ints() { return ints_; }

  /// Copies to the device; the fields are then handed out in order.
  void send() { sent_ = device_.is_cpu() ? host_ : host_.to(device_, /*non_blocking=*/true); }
  at::Tensor next_longs(int64_t count) {
    const at::Tensor out = sent_.narrow(0, longs_given_, count);
    longs_given_ += count;
    return out;
  }
  at::Tensor next_ints(int64_t count) {
    const int64_t longs = sent_.size(0) - ints_at_;
    const at::Tensor out =
        sent_.narrow(0, ints_at_, longs).view(at::kInt).narrow(0, ints_given_, count);
    ints_given_ += count;
    return out;
  }

 private:
  at::Device device_;
  int64_t ints_at_, longs_given_ = 0, ints_given_ = 0;
  at::Tensor host_, sent_;
  int64_t* longs_;
  int32_t* ints_;
};

/// Sizes alone; the tensors are not made yet.
ops::StepInputs measure(std::span<const SequenceStep> steps) {
  ops::StepInputs inputs;
  inputs.sequences = static_cast<int64_t>(steps.size());
  inputs.block_tokens = kBlock;
  for (const SequenceStep& step : steps) {
    inputs.tokens += new_tokens(step);
    inputs.max_query = std::max(inputs.max_query, new_tokens(step));
    inputs.max_context = std::max(inputs.max_context, length_after(step));
  }
  return inputs;
}

int64_t logit_rows(std::span<const SequenceStep> steps) {
  int64_t rows = 0;
  for (const SequenceStep& step : steps) rows += step.logits;
  return rows;
}

/// input_ids, positions, slots, logit_rows.
void fill_longs(std::span<const SequenceStep> steps, int64_t tokens, int64_t* out) {
  int64_t *ids = out, *positions = ids + tokens, *slots = positions + tokens;
  int64_t *logits = slots + tokens, row = 0;
  for (const SequenceStep& step : steps) {
    for (size_t i = 0; i < step.tokens.size(); ++i, ++row) {
      const int64_t position = step.cache->length + static_cast<int64_t>(i);
      ids[row] = step.tokens[i];
      positions[row] = position;
      slots[row] = step.cache->blocks[position / kBlock] * kBlock + position % kBlock;
    }
    for (int64_t left = step.logits; left > 0; --left) *logits++ = row - left;
  }
}

/// query_starts, sequence_lengths, block_table (`width` blocks a sequence), adapter_of_token.
void fill_ints(std::span<const SequenceStep> steps, std::span<const int32_t> adapters,
               int64_t width, int32_t* out) {
  const auto count = static_cast<int64_t>(steps.size());
  int32_t *starts = out, *lengths = starts + count + 1, *table = lengths + count;
  int32_t* adapter_of_token = table + count * width;
  starts[0] = 0;
  for (int64_t i = 0; i < count; ++i) {
    const SequenceStep& step = steps[static_cast<size_t>(i)];
    starts[i + 1] = starts[i] + static_cast<int32_t>(step.tokens.size());
    lengths[i] = static_cast<int32_t>(length_after(step));
    const auto used = static_cast<size_t>(KvCache::blocks_for(length_after(step)));
    int32_t* blocks = table + i * width;
    std::copy_n(step.cache->blocks.begin(), used, blocks);
    std::fill(blocks + used, blocks + width, 0);
    const int32_t adapter = adapters.empty() ? 0 : adapters[static_cast<size_t>(i)];
    adapter_of_token = std::fill_n(adapter_of_token, step.tokens.size(), adapter);
  }
}

/// By a CUDA kernel, where there is one for them.
bool attend_single_tokens(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                          const ops::StepInputs& inputs, const ops::AttentionParams& params,
                          const at::Tensor& out) {
  const ops::CudaModule* const module = ops::cuda_kernels(q.device());
  if (module == nullptr || !module->paged_attention.takes(q, keys, values)) return false;
  module->paged_attention.attend(q, keys, values, inputs, params, out);
  return true;
}

}  // namespace

ops::StepInputs make_step_inputs(std::span<const SequenceStep> steps,
                                 std::span<const int32_t> adapters, at::Device device) {
  ops::StepInputs inputs = measure(steps);
  const int64_t t = inputs.tokens, s = inputs.sequences;
  const int64_t width = KvCache::blocks_for(inputs.max_context);
  InputBuffer buffer(3 * t + logit_rows(steps), (s + 1) + s + s * width + t, device);
  fill_longs(steps, t, buffer.longs());
  fill_ints(steps, adapters, width, buffer.ints());
  buffer.send();
  inputs.input_ids = buffer.next_longs(t);
  inputs.positions = buffer.next_longs(t);
  inputs.slots = buffer.next_longs(t);
  inputs.logit_rows = buffer.next_longs(logit_rows(steps));
  inputs.query_starts = buffer.next_ints(s + 1);
  inputs.sequence_lengths = buffer.next_ints(s);
  inputs.block_table = buffer.next_ints(s * width).view({s, width});
  inputs.adapter_of_token = buffer.next_ints(t);
  return inputs;
}

/// One sequence's rows q (n, H, D), k and v (n, K, D), after k and v were written to the cache.
at::Tensor CachedAttention::attend_chunk(const at::Tensor& q, const at::Tensor& k,
                                         const at::Tensor& v, int64_t layer, size_t sequence,
                                         const ops::AttentionParams& params) {
  const int64_t n = q.size(0), past = steps_[sequence].cache->length, length = past + n;
  if (past == 0) return ops::attend_one(q, k, v, params, masks_);
  // The first new token sees the farthest back; the cache is read from the block that begins there.
  const int64_t first = params.window > 0 ? std::max<int64_t>(past + 1 - params.window, 0) : 0;
  const int64_t first_block = first / kBlock;
  const at::Tensor index = inputs_.block_table[static_cast<int64_t>(sequence)].narrow(
      0, first_block, KvCache::blocks_for(length) - first_block);
  const auto gather = [&](const at::Tensor& pool) {
    return pool.index_select(0, index)
        .flatten(0, 1)
        .narrow(0, first - first_block * kBlock, length - first)
        .to(q.scalar_type());
  };
  return ops::attend_one(q, gather(cache_.keys(layer, rank_)), gather(cache_.values(layer, rank_)),
                         params, masks_);
}

at::Tensor CachedAttention::context_lengths(at::Device device) const {
  std::vector<int64_t> lengths;
  for (const SequenceStep& step : steps_) {
    lengths.insert(lengths.end(), step.tokens.size(),
                   std::max(length_after(step), step.known_tokens));
  }
  return at::tensor(lengths, at::kLong).to(device);
}

at::Tensor CachedAttention::attend(int64_t layer, const ops::AttentionParams& params,
                                   const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const at::Tensor &keys = cache_.keys(layer, rank_), &values = cache_.values(layer, rank_);
  keys.flatten(0, 1).index_copy_(0, inputs_.slots, k.to(keys.scalar_type()));
  values.flatten(0, 1).index_copy_(0, inputs_.slots, v.to(values.scalar_type()));

  const bool has_kernel = ops::cpu::takes(q) && keys.scalar_type() == q.scalar_type();
  const at::Tensor queries = q.contiguous();
  at::Tensor out = at::empty({q.size(0), q.size(1), v.size(2)}, q.options());
  const bool singles_are_done = attend_single_tokens(queries, keys, values, inputs_, params, out);
  std::vector<ops::cpu::PagedRow> single;
  int64_t start = 0;
  for (size_t i = 0; i < steps_.size(); ++i) {
    const int64_t n = new_tokens(steps_[i]), length = length_after(steps_[i]);
    if (has_kernel && (n == 1 || (n <= kMostRowsApart && n < length))) {
      for (int64_t row = 0; row < n; ++row) {
        const int64_t end = length - n + row + 1;
        const int64_t first = params.window > 0 ? std::max<int64_t>(end - params.window, 0) : 0;
        single.push_back({start + row, steps_[i].cache->blocks.data(), first, end});
      }
    } else if (n != 1 || !singles_are_done) {
      out.narrow(0, start, n)
          .copy_(attend_chunk(queries.narrow(0, start, n), k.narrow(0, start, n),
                              v.narrow(0, start, n), layer, i, params));
    }
    start += n;
  }
  if (!single.empty()) ops::cpu::attend_paged(queries, keys, values, single, params, out);
  return out;
}

}  // namespace lorry::generate
