// Configuration, sampling and the fused operations; numbers of whole models are compared with
// `transformers` in tests/test_model.py.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <nlohmann/json.hpp>
#include <set>

#include "model/config.h"
#include "model/device.h"
#include "model/fused_ops.h"
#include "model/kv_cache.h"
#include "model/lora.h"
#include "model/sampling.h"

namespace lorry::model {
namespace {

Json small_config() {
  return {{"architectures", {"Qwen2ForCausalLM"}},
          {"model_type", "qwen2"},
          {"vocab_size", 64},
          {"hidden_size", 32},
          {"intermediate_size", 48},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"eos_token_id", 3}};
}

std::string refusal(const Json& config) {
  const auto parsed = parse_model_config(config, nullptr);
  return parsed.ok() ? "" : parsed.error().message;
}

TEST(Config, ReadsRopeOfBothFormats) {
  Json old = small_config(), today = small_config();
  old["rope_theta"] = 5e5;
  old["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  today["rope_parameters"] = {{"rope_theta", 5e5}, {"rope_type", "linear"}, {"factor", 2.0}};
  for (const Json& json : {old, today}) {
    const auto config = parse_model_config(json, nullptr);
    ASSERT_TRUE(config.ok()) << config.error().message;
    EXPECT_EQ(config->rope.type, RopeConfig::Type::kLinear);
    EXPECT_EQ(config->rope.theta, 5e5);
    EXPECT_EQ(config->rope.factor, 2.0);
  }
}

TEST(Config, JoinsTheEndTokensOfBothFiles) {
  const auto config = parse_model_config(small_config(), Json{{"eos_token_id", {5, 3}}});
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->eos_token_ids, (std::vector<int64_t>{3, 5}));
  EXPECT_TRUE(config->qkv_bias);
  EXPECT_EQ(config->head_dim, 8);
}

TEST(Config, RefusesByName) {
  Json json = small_config();
  json["architectures"] = {"MambaForCausalLM"};
  EXPECT_NE(refusal(json).find("MambaForCausalLM"), std::string::npos);
  EXPECT_NE(refusal(json).find("LlamaForCausalLM"), std::string::npos);
  json = small_config();
  json["head_dim"] = 7;
  EXPECT_NE(refusal(json).find("head_dim"), std::string::npos);
  json = small_config();
  json.erase("vocab_size");
  EXPECT_NE(refusal(json).find("vocab_size"), std::string::npos);
  EXPECT_NE(refusal(Json::array()), "");
}

TEST(Device, NamesWhatIsWrong) {
  EXPECT_TRUE(resolve_device("cpu")->is_cpu());
  EXPECT_EQ(resolve_device("tpu").error().kind, ErrorKind::kUsage);
  EXPECT_EQ(resolve_device("cuda:x").error().kind, ErrorKind::kUsage);
  EXPECT_EQ(resolve_dtype("int4", {}, at::kCPU).error().kind, ErrorKind::kUsage);
}

TEST(Sampling, GreedyTakesTheLowestOfTheLikeliest) {
  std::mt19937_64 rng(1);
  SamplingParams params;
  params.temperature = 0;
  const at::Tensor logits = at::tensor({0.f, 2.f, 2.f, 1.f});
  const Sample got = sample(logits, params, rng);
  EXPECT_EQ(got.id, 1);
  EXPECT_NEAR(got.logprob, at::log_softmax(logits, 0)[1].item<float>(), 1e-6);
}

TEST(Sampling, FollowsTheDistribution) {
  std::mt19937_64 rng(1);
  const at::Tensor probabilities = at::tensor({0.1f, 0.6f, 0.3f});
  std::vector<int> counts(3);
  for (int i = 0; i < 20000; ++i) ++counts[sample(probabilities.log(), {}, rng).id];
  for (int i = 0; i < 3; ++i) {
    EXPECT_NEAR(counts[i] / 20000.0, probabilities[i].item<float>(), 0.02);
  }
}

TEST(Sampling, CutsTheTail) {
  std::mt19937_64 rng(1);
  const at::Tensor logits = at::tensor({0.1f, 0.5f, 0.25f, 0.15f}).log();
  const auto seen = [&](const SamplingParams& params) {
    std::set<int32_t> ids;
    for (int i = 0; i < 2000; ++i) ids.insert(sample(logits, params, rng).id);
    return ids;
  };
  SamplingParams top_k, top_p, min_p;
  top_k.top_k = 2;
  top_p.top_p = 0.8;
  min_p.min_p = 0.4;
  EXPECT_EQ(seen(top_k), (std::set<int32_t>{1, 2}));
  EXPECT_EQ(seen(top_p), (std::set<int32_t>{1, 2, 3}));
  EXPECT_EQ(seen(min_p), (std::set<int32_t>{1, 2}));
}

TEST(Sampling, PenaltiesLookAtTheHistory) {
  std::mt19937_64 rng(1);
  SamplingParams params;
  params.temperature = 0;
  const std::vector<int32_t> prompt = {0}, output = {1, 1};
  const at::Tensor logits = at::tensor({3.f, 2.9f, 2.f});
  params.frequency_penalty = 2;
  EXPECT_EQ(sample(logits, params, rng, {prompt, output}).id, 0);
  params.frequency_penalty = 0;
  params.repetition_penalty = 2;
  EXPECT_EQ(sample(logits, params, rng, {prompt, output}).id, 2);
}

TEST(KvCache, GivesOutBlocksUntilNoneIsLeft) {
  const ModelConfig config = *parse_model_config(small_config(), nullptr);
  KvCache cache(config, 100, at::kFloat, at::kCPU);
  EXPECT_EQ(cache.free_tokens(), 128);
  KvCache::Sequence a, b;
  EXPECT_TRUE(cache.reserve(a, 40));
  EXPECT_TRUE(cache.reserve(a, 64));
  EXPECT_EQ(a.blocks.size(), 2u);
  EXPECT_FALSE(cache.reserve(b, 65));
  EXPECT_TRUE(b.blocks.empty());
  cache.release(a);
  EXPECT_TRUE(cache.reserve(b, 128));
}

TEST(Lora, AFreshAdapterDependsOnTheSeedAndNotOnTheOtherTargets) {
  const ModelConfig config = *parse_model_config(small_config(), nullptr);
  LoraConfig all, one;
  one.targets = {Projection::kV};
  const auto a = LoraAdapter::create(config, all, 5, at::kCPU);
  const auto b = LoraAdapter::create(config, one, 5, at::kCPU);
  const auto c = LoraAdapter::create(config, one, 6, at::kCPU);
  const auto matrix = [](const auto& adapter) { return adapter->find(1, Projection::kV)->a; };
  EXPECT_TRUE(at::equal(matrix(a), matrix(b)));
  EXPECT_FALSE(at::equal(matrix(b), matrix(c)));
  EXPECT_EQ(b->find(1, Projection::kQ), nullptr);
}

/// Gradients of fn's output, weighted by `seed`, in its inputs.
template <typename Fn>
std::vector<at::Tensor> gradients(const std::vector<at::Tensor>& inputs, const at::Tensor& seed,
                                  Fn&& fn) {
  std::vector<at::Tensor> leaves;
  for (const auto& input : inputs) leaves.push_back(input.detach().clone().requires_grad_(true));
  return torch::autograd::grad({fn(leaves)}, leaves, {seed});
}

void expect_close(const at::Tensor& a, const at::Tensor& b, double tolerance) {
  ASSERT_EQ(a.sizes(), b.sizes());
  EXPECT_LE((a.to(at::kFloat) - b.to(at::kFloat)).abs().max().item<double>(), tolerance);
}

class FusedOps : public testing::TestWithParam<at::ScalarType> {
 protected:
  at::Tensor random(std::vector<int64_t> shape) { return at::randn(shape).to(GetParam()); }
  /// Two roundings of numbers of size 8, or float32's own.
  double tolerance() const { return GetParam() == at::kFloat ? 2e-5 : 0.1; }
};

TEST_P(FusedOps, RmsNormAndItsGradients) {
  const at::Tensor x = random({5, 37}), w = random({37}), seed = random({5, 37});
  const auto plain = [](const auto& in) {
    const at::Tensor wide = in[0].to(at::kFloat);
    const at::Tensor scale = at::rsqrt(wide.pow(2).mean(-1, true) + 1e-6);
    return in[1] * (wide * scale).to(in[0].scalar_type());
  };
  const auto fused = [](const auto& in) { return rms_norm(in[0], in[1], 1e-6); };
  expect_close(fused(std::vector{x, w}), plain(std::vector{x, w}), tolerance());
  const auto want = gradients({x, w}, seed, plain), got = gradients({x, w}, seed, fused);
  for (int i = 0; i < 2; ++i) expect_close(got[i], want[i], tolerance());
}

TEST_P(FusedOps, RotationAndItsGradient) {
  const at::Tensor x = random({4, 3, 10}), seed = random({4, 3, 10});
  const at::Tensor angle = at::randn({4, 1, 5});
  const at::Tensor cos = angle.cos().to(GetParam()), sin = angle.sin().to(GetParam());
  const auto plain = [&](const auto& in) {
    const at::Tensor a = in[0].narrow(-1, 0, 5), b = in[0].narrow(-1, 5, 5);
    return at::cat({a * cos - b * sin, b * cos + a * sin}, -1);
  };
  const auto fused = [&](const auto& in) { return rotate(in[0], cos, sin); };
  expect_close(fused(std::vector{x}), plain(std::vector{x}), tolerance());
  expect_close(gradients({x}, seed, fused)[0], gradients({x}, seed, plain)[0], tolerance());
}

INSTANTIATE_TEST_SUITE_P(Dtypes, FusedOps, testing::Values(at::kFloat, at::kBFloat16));

}  // namespace
}  // namespace lorry::model
