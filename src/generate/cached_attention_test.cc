#include "generate/cached_attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace lorry::generate {
namespace {

constexpr int64_t kBlock = KvCache::kBlockTokens;

std::vector<int64_t> longs(const at::Tensor& x) {
  const at::Tensor wide = x.to(at::kLong).contiguous();
  return {wide.const_data_ptr<int64_t>(), wide.const_data_ptr<int64_t>() + wide.numel()};
}
using Longs = std::vector<int64_t>;

TEST(StepInputs, DescribeConcatenatedSequencesAndTheirBlocks) {
  KvCache::Sequence a{{4, 7}, 31}, b{{2}, 0};
  const std::vector<int32_t> a_tokens = {11, 12}, b_tokens = {21, 22, 23};
  const std::vector<SequenceStep> steps = {{&a, a_tokens, nullptr, 1}, {&b, b_tokens, nullptr, 3}};
  const std::vector<int32_t> adapters = {1, 0};
  const ops::StepInputs inputs = make_step_inputs(steps, adapters, at::kCPU);
  EXPECT_EQ(longs(inputs.input_ids), (Longs{11, 12, 21, 22, 23}));
  EXPECT_EQ(longs(inputs.positions), (Longs{31, 32, 0, 1, 2}));
  EXPECT_EQ(longs(inputs.slots),
            (Longs{4 * kBlock + 31, 7 * kBlock, 2 * kBlock, 2 * kBlock + 1, 2 * kBlock + 2}));
  EXPECT_EQ(longs(inputs.logit_rows), (Longs{1, 2, 3, 4}));
  EXPECT_EQ(longs(inputs.query_starts), (Longs{0, 2, 5}));
  EXPECT_EQ(longs(inputs.sequence_lengths), (Longs{33, 3}));
  EXPECT_EQ(inputs.block_table.sizes(), (Longs{2, 2}));
  EXPECT_EQ(longs(inputs.block_table), (Longs{4, 7, 2, 0}));
  EXPECT_EQ(longs(inputs.adapter_of_token), (Longs{1, 1, 0, 0, 0}));
  EXPECT_EQ(inputs.block_table.scalar_type(), at::kInt);
  EXPECT_EQ((Longs{inputs.tokens, inputs.sequences, inputs.max_query, inputs.max_context}),
            (Longs{5, 2, 3, 33}));
}

/// Attention of one sequence in float64: q (T, H, D), k and v (T, K, D).
at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           int64_t window) {
  const int64_t t = q.size(0), group = q.size(1) / k.size(1);
  const auto wide = [&](const at::Tensor& x, int64_t repeat) {
    return x.to(at::kDouble).repeat_interleave(repeat, 1).transpose(0, 1);  // (H, T, D)
  };
  at::Tensor scores = wide(q, 1).matmul(wide(k, group).transpose(1, 2)) / std::sqrt(q.size(2));
  const at::Tensor place = at::arange(t);
  const at::Tensor distance = place.unsqueeze(1) - place.unsqueeze(0);
  at::Tensor hidden = distance < 0;
  if (window > 0) hidden = hidden.logical_or(distance >= window);
  scores = scores.masked_fill(hidden, -INFINITY).softmax(-1);
  return scores.matmul(wide(v, group)).transpose(0, 1);
}

struct Plain {
  at::Tensor q, k, v;
};
Plain random_sequence(int64_t tokens) {
  return {at::randn({tokens, 4, 8}), at::randn({tokens, 2, 8}), at::randn({tokens, 2, 8})};
}

/// Feeds `tokens` more tokens of each sequence, whose places in `whole` its length tells.
std::vector<at::Tensor> advance(KvCache& cache, std::vector<KvCache::Sequence*> sequences,
                                const std::vector<const Plain*>& whole,
                                const std::vector<int64_t>& tokens, int64_t window) {
  std::vector<std::vector<int32_t>> ids;
  for (const int64_t n : tokens) ids.emplace_back(n, 0);
  std::vector<SequenceStep> steps;
  std::vector<at::Tensor> q, k, v, out;
  for (size_t i = 0; i < sequences.size(); ++i) {
    EXPECT_TRUE(cache.reserve(*sequences[i], sequences[i]->length + tokens[i]));
    steps.push_back({sequences[i], ids[i]});
    q.push_back(whole[i]->q.narrow(0, sequences[i]->length, tokens[i]));
    k.push_back(whole[i]->k.narrow(0, sequences[i]->length, tokens[i]));
    v.push_back(whole[i]->v.narrow(0, sequences[i]->length, tokens[i]));
  }
  const ops::StepInputs inputs = make_step_inputs(steps, {}, at::kCPU);
  CachedAttention attention(cache, steps, inputs);
  ops::AttentionParams params;
  params.scale = 1 / std::sqrt(8.0);
  params.window = window;
  const at::Tensor rows = attention.attend(0, params, at::cat(q), at::cat(k), at::cat(v));
  int64_t start = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    out.push_back(rows.narrow(0, start, tokens[i]));
    start += tokens[i];
    sequences[i]->length += tokens[i];
  }
  return out;
}

TEST(CachedAttention, ChunksAndSingleTokensSeeAllOfTheirSequence) {
  at::manual_seed(1);
  for (const int64_t window : {0, 5, 40}) {
    KvCache cache({{2, 8, 8}}, 400, at::kFloat, {at::kCPU});
    const Plain a = random_sequence(80), b = random_sequence(70);
    const at::Tensor want_a = plain_attention(a.q, a.k, a.v, window);
    const at::Tensor want_b = plain_attention(b.q, b.k, b.v, window);
    KvCache::Sequence sa, sb;
    for (const auto& [na, nb] :
         std::vector<std::pair<int64_t, int64_t>>{{33, 1}, {1, 40}, {1, 1}, {1, 20}, {40, 1}}) {
      const int64_t begin_a = sa.length, begin_b = sb.length;
      const auto out = advance(cache, {&sa, &sb}, {&a, &b}, {na, nb}, window);
      EXPECT_LE((out[0] - want_a.narrow(0, begin_a, na)).abs().max().item<double>(), 1e-5);
      EXPECT_LE((out[1] - want_b.narrow(0, begin_b, nb)).abs().max().item<double>(), 1e-5);
    }
  }
}

TEST(CachedAttention, AForkGoesOnFromTheSharedTokens) {
  at::manual_seed(2);
  KvCache cache({{2, 8, 8}}, 400, at::kFloat, {at::kCPU});
  const Plain a = random_sequence(60);
  Plain b = random_sequence(60);
  for (auto [to, from] : {std::pair(b.q, a.q), {b.k, a.k}, {b.v, a.v}}) {
    to.narrow(0, 0, 45).copy_(from.narrow(0, 0, 45));
  }
  KvCache::Sequence sa;
  advance(cache, {&sa}, {&a}, {45}, 0);
  KvCache::Sequence sb = cache.fork(sa);
  const auto out = advance(cache, {&sa, &sb}, {&a, &b}, {15, 15}, 0);
  const at::Tensor want_a = plain_attention(a.q, a.k, a.v, 0).narrow(0, 45, 15);
  const at::Tensor want_b = plain_attention(b.q, b.k, b.v, 0).narrow(0, 45, 15);
  EXPECT_LE((out[0] - want_a).abs().max().item<double>(), 1e-5);
  EXPECT_LE((out[1] - want_b).abs().max().item<double>(), 1e-5);
}

}  // namespace
}  // namespace lorry::generate
