// The kernels of paged_attention.h in float64's numbers.
#include "ops/paged_attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <numeric>

#include "ops/implementations_test.h"

#ifdef LORRY_CUDA_ON_HOST
#include "ops/cuda_module_parts.h"
#include "ops/paged_attention_cuda.cu"  // the kernels, compiled for the host

extern "C" const unsigned char lorry_fatbin_paged_attention[1] = {};
#endif

namespace lorry::ops {
namespace {

constexpr int64_t kBlock = 32;

const PagedAttentionImplementation* on_host() {
#ifdef LORRY_CUDA_ON_HOST
  return &kCudaPagedAttention;
#else
  return nullptr;
#endif
}

/// Sequences of `lengths` tokens, of which the last `news` are new, in blocks that lie anywhere.
struct Step {
  at::Tensor q, keys, values;
  StepInputs inputs;
  std::vector<int64_t> lengths, news;
};

class PagedKernels : public testing::TestWithParam<KernelParam> {
 protected:
  void SetUp() override {
    std::string reason;
    target_ = cuda_target(std::get<0>(GetParam()), &CudaModule::paged_attention, on_host(), reason);
    if (!target_) GTEST_SKIP() << reason;
    at::manual_seed(1);
  }
  at::ScalarType dtype() const { return std::get<1>(GetParam()); }
  at::Tensor random(at::IntArrayRef shape) const {
    return at::randn(shape).to(target_->device, dtype());
  }
  at::Tensor ints(const std::vector<int64_t>& numbers) const {
    return at::tensor(numbers, at::kInt).to(target_->device);
  }

  Step make_step(std::vector<int64_t> lengths, std::vector<int64_t> news, int64_t heads,
                 int64_t kv_heads, int64_t d) const {
    Step step{.lengths = std::move(lengths), .news = std::move(news)};
    const auto count = static_cast<int64_t>(step.lengths.size());
    const int64_t longest = *std::max_element(step.lengths.begin(), step.lengths.end());
    const int64_t width = (longest + kBlock - 1) / kBlock;
    std::vector<int64_t> starts = {0};
    for (const int64_t n : step.news) starts.push_back(starts.back() + n);
    step.inputs.query_starts = ints(starts);
    step.inputs.sequence_lengths = ints(step.lengths);
    step.inputs.block_table =
        at::randperm(count * width).to(at::kInt).view({count, width}).to(target_->device);
    step.inputs.tokens = starts.back();
    step.inputs.sequences = count;
    step.inputs.max_context = longest;
    step.inputs.block_tokens = kBlock;
    step.q = random({starts.back(), heads, d});
    step.keys = random({count * width, kBlock, kv_heads, d});
    step.values = random({count * width, kBlock, kv_heads, d});
    return step;
  }

  at::Tensor attend(const Step& step, const AttentionParams& params) const {
    const at::Tensor out = at::full_like(step.q, -7);
    EXPECT_TRUE(target_->implementation.takes(step.q, step.keys, step.values));
    target_->implementation.attend(step.q, step.keys, step.values, step.inputs, params, out);
    return out;
  }

  static at::Tensor wide(const at::Tensor& x) { return x.to(at::kCPU, at::kDouble); }

  /// (H, D) of a sequence with one new token.
  static at::Tensor exact(const Step& step, int64_t sequence, const AttentionParams& params) {
    const int64_t length = step.lengths[sequence];
    const int64_t row =
        std::accumulate(step.news.begin(), step.news.begin() + sequence, int64_t{0});
    const at::Tensor q = wide(step.q[row]).unsqueeze(1);  // (H, 1, D)
    const int64_t group = q.size(0) / step.keys.size(2);
    const int64_t first = params.window > 0 ? std::max<int64_t>(0, length - params.window) : 0;
    const at::Tensor blocks = step.inputs.block_table[sequence].cpu().to(at::kLong);
    const auto tokens = [&](const at::Tensor& pool) {  // (H, tokens, D)
      return wide(pool)
          .index_select(0, blocks)
          .flatten(0, 1)
          .narrow(0, first, length - first)
          .repeat_interleave(group, 1)
          .transpose(0, 1);
    };
    at::Tensor scores = at::matmul(q, tokens(step.keys).transpose(1, 2)) * params.scale;
    if (params.softcap > 0) scores = at::tanh(scores / params.softcap) * params.softcap;
    if (params.sinks.defined()) {
      scores = at::cat({scores, wide(params.sinks).view({-1, 1, 1})}, -1);
    }
    const at::Tensor shares = scores.softmax(-1).narrow(-1, 0, length - first);
    return at::matmul(shares, tokens(step.values)).squeeze(1);
  }

  void check(const Step& step, const AttentionParams& params) const {
    const at::Tensor out = attend(step, params);
    int64_t row = 0;
    for (size_t i = 0; i < step.news.size(); row += step.news[i++]) {
      if (step.news[i] != 1) {
        EXPECT_TRUE(out.narrow(0, row, step.news[i]).eq(-7).all().item<bool>());
        continue;
      }
      const at::Tensor want = exact(step, static_cast<int64_t>(i), params);
      const double off = (wide(out[row]) - want).abs().max().item<double>();
      EXPECT_LE(off, 1.01 * half_unit(dtype()) * want.abs().max().item<double>() + 1e-5)
          << "sequence " << i << " of " << step.lengths[i] << " tokens";
    }
  }
  std::optional<Target<PagedAttentionImplementation>> target_;
};

TEST_P(PagedKernels, AttendToSequencesOfAnyLength) {
  check(make_step({1, 31, 32, 33, 127, 128}, {1, 1, 1, 1, 1, 1}, 4, 2, 64), {.scale = 0.125});
  check(make_step({1, 129, 300, 513}, {1, 1, 1, 1}, 4, 1, 64), {.scale = 0.125});
}

TEST_P(PagedKernels, TakeEveryGroupOfHeadsAndHeadSize) {
  for (const auto& [heads, kv_heads, d] : {std::tuple<int64_t, int64_t, int64_t>{2, 2, 128},
                                           {14, 2, 64},
                                           {5, 1, 96},
                                           {16, 1, 32},
                                           {3, 1, 256}}) {
    SCOPED_TRACE(testing::Message() << heads << " heads of " << d);
    check(make_step({40, 140}, {1, 1}, heads, kv_heads, d), {.scale = 0.1});
  }
}

TEST_P(PagedKernels, LeaveSequencesOfSeveralNewTokensAlone) {
  check(make_step({40, 50, 7, 200}, {3, 1, 7, 1}, 4, 2, 64), {.scale = 0.1});
}

TEST_P(PagedKernels, SeeNoFartherThanTheWindow) {
  for (const int64_t window : {1, 40, 128, 200}) {
    check(make_step({30, 170, 400}, {1, 1, 1}, 2, 1, 64), {.scale = 0.1, .window = window});
  }
}

TEST_P(PagedKernels, CapScoresAndShareWithSinks) {
  check(make_step({30, 170}, {1, 1}, 4, 2, 64), {.scale = 0.5, .softcap = 3});
  check(make_step({30, 170}, {1, 1}, 4, 2, 64), {.scale = 0.1, .sinks = random({4})});
}

TEST_P(PagedKernels, GiveASequenceTheSameBitsWhateverRunsBesideIt) {
  const Step all = make_step({60, 400, 33}, {1, 1, 1}, 4, 2, 64);
  Step one = all;
  one.lengths = {60}, one.news = {1};
  one.inputs.sequences = 1, one.inputs.tokens = 1, one.inputs.max_context = 60;
  EXPECT_TRUE(attend(all, {.scale = 0.1})[0].equal(attend(one, {.scale = 0.1})[0]));
}

INSTANTIATE_TEST_SUITE_P(, PagedKernels,
                         testing::Combine(testing::Values("cuda_on_host", "cuda"),
                                          testing::Values(at::kBFloat16, at::kHalf)),
                         kernel_param_name);

}  // namespace
}  // namespace lorry::ops
