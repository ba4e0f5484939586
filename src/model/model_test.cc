// Configuration and adapters; numbers of whole models are compared with
// `transformers` in tests/test_model.py.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "model/families.h"
#include "model/lora.h"

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
  const auto parsed = parse_model_spec(config, nullptr);
  return parsed.ok() ? "" : parsed.error().message;
}

TEST(Config, ReadsRopeOfBothFormats) {
  Json old = small_config(), today = small_config();
  old["rope_theta"] = 5e5;
  old["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  today["rope_parameters"] = {{"rope_theta", 5e5}, {"rope_type", "linear"}, {"factor", 2.0}};
  for (const Json& json : {old, today}) {
    const auto spec = parse_model_spec(json, nullptr);
    ASSERT_TRUE(spec.ok()) << spec.error().message;
    EXPECT_EQ(spec->ropes[0].type, RopeSpec::Type::kLinear);
    EXPECT_EQ(spec->ropes[0].theta, 5e5);
    EXPECT_EQ(spec->ropes[0].factor, 2.0);
  }
}

TEST(Config, RopeScalingMakesTheContextLonger) {
  const auto contexts = [](Json scaling, int64_t positions) {
    Json json = small_config();
    json["max_position_embeddings"] = positions;
    json["rope_scaling"] = std::move(scaling);
    const auto spec = parse_model_spec(json, nullptr);
    EXPECT_TRUE(spec.ok());
    return std::pair(spec->max_position_embeddings, spec->longest_context);
  };
  using Contexts = std::pair<int64_t, int64_t>;
  const auto yarn = [](int64_t original) {
    return Json{{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", original}};
  };
  EXPECT_EQ(contexts(yarn(2048), 2048), Contexts(8192, 8192));
  EXPECT_EQ(contexts(yarn(2048), 2560), Contexts(8192, 8192));  // Qwen3: room for the answer
  EXPECT_EQ(contexts(yarn(2048), 8192), Contexts(8192, 8192));
  EXPECT_EQ(contexts({{"type", "yarn"}, {"factor", 4.0}}, 2048), Contexts(8192, 8192));
  EXPECT_EQ(contexts({{"type", "linear"}, {"factor", 2.0}}, 2048), Contexts(2048, 4096));
  EXPECT_EQ(contexts({{"type", "dynamic"}, {"factor", 2.0}}, 2048), Contexts(2048, 2048));
  EXPECT_EQ(contexts(nullptr, 2048), Contexts(2048, 2048));
}

TEST(Config, JoinsTheEndTokensOfBothFiles) {
  const auto spec = parse_model_spec(small_config(), Json{{"eos_token_id", {5, 3}}});
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->eos_token_ids, (std::vector<int64_t>{3, 5}));
  EXPECT_EQ(spec->linears[0].modules[0].bias.name, "model.layers.0.self_attn.q_proj.bias");
  EXPECT_EQ(std::get<AttentionSpec>(spec->layers[0].attention).head_dim, 8);
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

ModelSpec small_model() { return parse_model_spec(small_config(), nullptr).value(); }

/// The module of that name.
ModuleIndex module_named(const ModelSpec& spec, const std::string& name) {
  for (size_t l = 0; l < spec.linears.size(); ++l) {
    for (size_t m = 0; m < spec.linears[l].modules.size(); ++m) {
      if (spec.linears[l].modules[m].name == name) {
        return {static_cast<int64_t>(l), static_cast<int64_t>(m)};
      }
    }
  }
  ADD_FAILURE() << "no module " << name;
  return {};
}

TEST(Lora, AFreshAdapterDependsOnTheSeedAndNotOnTheOtherTargets) {
  const ModelSpec spec = small_model();
  LoraConfig all, one;
  one.target_modules = {"v_proj"};
  const auto a = LoraAdapter::create(spec, all, 5, at::kCPU).value();
  const auto b = LoraAdapter::create(spec, one, 5, at::kCPU).value();
  const auto c = LoraAdapter::create(spec, one, 6, at::kCPU).value();
  const auto [linear, module] = module_named(spec, "model.layers.1.self_attn.v_proj");
  EXPECT_TRUE(at::equal(a->find(linear, module)->a, b->find(linear, module)->a));
  EXPECT_FALSE(at::equal(b->find(linear, module)->a, c->find(linear, module)->a));
  EXPECT_EQ(b->find(linear, 0), nullptr);
}

std::vector<std::string> selected(const LoraConfig& config) {
  const ModelSpec spec = small_model();
  std::vector<std::string> names;
  const auto modules = select_modules(spec, config).value();
  for (const auto& [l, m] : modules) {
    names.push_back(spec.linears[l].modules[m].name);
  }
  return names;
}

TEST(Lora, ModulesAreSelectedByNameByPatternAndByLayer) {
  LoraConfig config;
  EXPECT_EQ(selected(config).size(), 14u);
  config.target_modules = {"all-linear"};
  config.exclude_modules = {"down_proj"};
  EXPECT_EQ(selected(config).size(), 12u);
  config.exclude_modules.clear();
  config.target_modules = {"self_attn.o_proj"};
  config.layers_to_transform = {1};
  EXPECT_EQ(selected(config), std::vector<std::string>{"model.layers.1.self_attn.o_proj"});
  config.target_modules = {R"(.*\.0\.mlp\.(gate|up)_proj)"};
  config.targets_are_pattern = true;
  EXPECT_EQ(selected(config), (std::vector<std::string>{"model.layers.0.mlp.gate_proj",
                                                        "model.layers.0.mlp.up_proj"}));
}

TEST(Lora, ANameOrPatternThatMatchesNothingIsRefusedWithTheNamesThereAre) {
  LoraConfig config;
  config.target_modules = {"q_proj", "c_attn"};
  const auto result = select_modules(small_model(), config);
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.error().message.find("c_attn"), std::string::npos);
  EXPECT_NE(result.error().message.find("gate_proj"), std::string::npos);
  config.target_modules = {"("};
  config.targets_are_pattern = true;
  EXPECT_FALSE(select_modules(small_model(), config).ok());
}

TEST(Lora, RankAndAlphaPatternsMatchTheEndOfAName) {
  LoraConfig config;
  config.r = 8;
  config.alpha = 16;
  config.rank_pattern = {{"q_proj", 4}, {R"(layers\.0\.mlp\.up_proj)", 2}};
  config.alpha_pattern = {{"up_proj", 6}};
  EXPECT_EQ(config.rank_of("model.layers.1.self_attn.q_proj"), 4);
  EXPECT_EQ(config.rank_of("model.layers.1.mlp.up_proj"), 8);
  EXPECT_EQ(config.rank_of("model.layers.0.mlp.up_proj"), 2);
  EXPECT_EQ(config.scale_of("model.layers.0.mlp.up_proj"), 3.0);
  EXPECT_EQ(config.scale_of("model.layers.0.self_attn.q_proj"), 4.0);
}

}  // namespace
}  // namespace lorry::model
