// A family from outside the list and the block: what docs/add-a-model.md promises. Its logits are
// compared with the same model written out in plain libtorch.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/spec_builder.h"
#include "model/transformer.h"

namespace lorry::model {
namespace {

constexpr int64_t kHidden = 24, kHeads = 4, kKvHeads = 2, kHeadDim = 6, kWidth = 40, kVocab = 50;
constexpr double kCap = 5, kResidual = 0.5, kEps = 1e-6;

/// Heron: a norm after each half alone, no rotation in odd layers, halves weighed by a half, capped
/// logits, an MLP of one fused map, a gelu gate.
Result<ModelSpec> read_heron(ConfigReader& config) {
  SpecBuilder b(config, {.activation = "gelu"});
  LORRY_TRY(b.status());
  LORRY_ASSIGN(const int rope, b.rope());
  b.spec.logit_softcap = config.number("final_logit_softcapping", kCap);
  for (int64_t i = 0; i < b.layers; ++i) {
    BlockSpec block;
    block.residual_scale = kResidual;
    block.attention = b.attention(i, {.rope = i % 2 == 0 ? rope : -1});
    block.after_attention = b.norm(i, "attention_norm", b.hidden);
    MlpSpec mlp{.width = b.width, .activation = b.activation};
    mlp.gate_up = b.linear(i, b.hidden, {{"feed_forward.wi", 2 * b.width}});
    mlp.down = b.linear(i, b.width, {{"feed_forward.wo", b.hidden}});
    block.mlp = mlp;
    block.after_mlp = b.norm(i, "feed_forward_norm", b.hidden);
    b.spec.layers.push_back(std::move(block));
  }
  return b.finish();
}

Json heron_config() {
  return {{"vocab_size", kVocab},          {"hidden_size", kHidden},
          {"intermediate_size", kWidth},   {"num_hidden_layers", 2},
          {"num_attention_heads", kHeads}, {"num_key_value_heads", kKvHeads},
          {"rms_norm_eps", kEps},          {"max_position_embeddings", 64}};
}

/// Random weights for all that the description names.
std::map<std::string, at::Tensor> random_weights(const ModelSpec& spec) {
  std::map<std::string, at::Tensor> weights;
  for (const TensorSpec& tensor : spec.tensors) weights[tensor.name] = at::randn(tensor.shape);
  for (const LinearSpec& linear : spec.linears) {
    for (const Module& module : linear.modules) {
      weights[module.weight.name] = at::randn({module.rows, linear.in}) * 0.2;
    }
  }
  return weights;
}

class Heron {
 public:
  explicit Heron(std::map<std::string, at::Tensor> weights) : weights_(std::move(weights)) {}

  /// Logits (T, V) of one sequence.
  at::Tensor operator()(const at::Tensor& ids) const {
    at::Tensor x = at::embedding(get("model.embed_tokens.weight"), ids);
    for (int64_t i = 0; i < 2; ++i) {
      const std::string prefix = "model.layers." + std::to_string(i) + ".";
      x = x + kResidual * norm(attention(x, prefix, i % 2 == 0), prefix + "attention_norm.weight");
      x = x + kResidual * norm(mlp(x, prefix), prefix + "feed_forward_norm.weight");
    }
    x = at::linear(norm(x, "model.norm.weight"), get("lm_head.weight"));
    return kCap * at::tanh(x / kCap);
  }

 private:
  const at::Tensor& get(const std::string& name) const { return weights_.at(name); }
  at::Tensor norm(const at::Tensor& x, const std::string& name) const {
    return x / (x.pow(2).mean(-1, true) + kEps).sqrt() * get(name);
  }
  at::Tensor mlp(const at::Tensor& x, const std::string& prefix) const {
    const auto parts = at::linear(x, get(prefix + "feed_forward.wi.weight")).chunk(2, -1);
    return at::linear(at::gelu(parts[0]) * parts[1], get(prefix + "feed_forward.wo.weight"));
  }
  static at::Tensor rotated(const at::Tensor& x) {
    const at::Tensor frequency = at::pow(10000.0, -at::arange(0, kHeadDim, 2) / double(kHeadDim));
    const at::Tensor angle = (at::arange(x.size(0)).unsqueeze(1) * frequency).unsqueeze(1);
    const auto halves = x.chunk(2, -1);
    return at::cat({halves[0] * angle.cos() - halves[1] * angle.sin(),
                    halves[1] * angle.cos() + halves[0] * angle.sin()},
                   -1);
  }
  at::Tensor attention(const at::Tensor& x, const std::string& prefix, bool rotate) const {
    const auto heads = [&](const char* name) {
      return at::linear(x, get(prefix + "self_attn." + name + ".weight"))
          .view({x.size(0), -1, kHeadDim});
    };
    at::Tensor q = heads("q_proj"), k = heads("k_proj"), v = heads("v_proj");
    if (rotate) q = rotated(q), k = rotated(k);
    k = k.repeat_interleave(kHeads / kKvHeads, 1);
    v = v.repeat_interleave(kHeads / kKvHeads, 1);
    at::Tensor scores = at::einsum("ihd,jhd->hij", {q, k}) / std::sqrt(double(kHeadDim));
    const at::Tensor hidden = at::ones({x.size(0), x.size(0)}, at::kBool).triu(1);
    scores = scores.masked_fill(hidden, -INFINITY).softmax(-1);
    const at::Tensor out = at::einsum("hij,jhd->ihd", {scores, v}).reshape({x.size(0), -1});
    return at::linear(out, get(prefix + "self_attn.o_proj.weight"));
  }

  std::map<std::string, at::Tensor> weights_;
};

TEST(MadeUpFamily, RunsThroughTheBlockWithoutALineInIt) {
  const at::NoGradGuard no_grad;
  at::manual_seed(7);
  const Json json = heron_config();
  ConfigReader config(json);
  const auto spec = read_heron(config);
  ASSERT_TRUE(spec.ok()) << spec.error().message;
  const auto weights = random_weights(*spec);

  const auto dir = std::filesystem::path(testing::TempDir()) / "made_up_family";
  std::filesystem::create_directories(dir);
  const auto bucket = store::Bucket::open(dir.string(), true).value();
  const NamedTensors named(weights.begin(), weights.end());
  ASSERT_TRUE(write_safetensors(*bucket, "model/model.safetensors", named).ok());
  const auto model = Transformer::load(*bucket, "model", *spec, {});
  ASSERT_TRUE(model.ok()) << model.error().message;

  const at::Tensor ids = at::randint(kVocab, {17}, at::kLong);
  // Two sequences, packed: each must come out as it does alone.
  const at::Tensor packed = at::cat({ids, ids.narrow(0, 3, 9)});
  const at::Tensor positions = at::cat({at::arange(17, at::kLong), at::arange(9, at::kLong)});
  PackedAttention attention({0, 17, 26});
  const at::Tensor logits =
      (*model)->logits((*model)->forward(packed, positions, attention, AdapterView::none()));
  const Heron plain(weights);
  const at::Tensor want = at::cat({plain(ids), plain(ids.narrow(0, 3, 9))});
  EXPECT_LE((logits - want).abs().max().item<double>(), 1e-4);

  // Adapters, caches and plans need no more than the description.
  const auto adapter = LoraAdapter::create(*spec, {}, 1, at::kCPU);
  ASSERT_TRUE(adapter.ok());
  EXPECT_EQ((*adapter)->named_parameters().size(), 2u * 2 * 6);  // A and B, two layers, six maps
  EXPECT_EQ(spec->cache_layout(), (std::vector<LayerCache>(2, {kKvHeads, kHeadDim, kHeadDim})));
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace lorry::model
