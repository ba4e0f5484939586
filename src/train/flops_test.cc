// Operations of a training, against sums made by hand.
#include "train/flops.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "model/families.h"

namespace lorry::train {
namespace {

/// Two layers, width 8, 2 heads of 4 with one key head, MLP 16, vocabulary 100.
Json tiny_config() {
  return {{"architectures", {"MinistralForCausalLM"}},
          {"vocab_size", 100},
          {"hidden_size", 8},
          {"intermediate_size", 16},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 1},
          {"head_dim", 4},
          {"sliding_window", nullptr}};
}
model::ModelSpec spec_of(const Json& config) {
  return model::parse_model_spec(config, nullptr).value();
}
model::ModelSpec tiny() { return spec_of(tiny_config()); }

// q 8x8, k and v 8x4, o 8x8, gate, up and down 8x16.
constexpr double kBlock = 64 + 32 + 32 + 64 + 3 * 128;

TEST(Flops, AFrozenWeightCostsFourATokenAndATrainedOneSix) {
  const RunWork work{.tokens = 10, .targets = 3};
  EXPECT_DOUBLE_EQ(training_flops(tiny(), std::nullopt, work), 6 * (2 * kBlock * 10 + 800 * 3));
  model::LoraConfig lora;
  lora.r = 2;
  lora.target_modules = {"q_proj"};
  EXPECT_EQ(lora_parameters(tiny(), lora), 2 * 2 * (8 + 8));
  EXPECT_DOUBLE_EQ(training_flops(tiny(), lora, work),
                   4 * (2 * kBlock * 10 + 800 * 3) + 6 * 64 * 10);
}

TEST(Flops, AttentionCostsTwelveOfTheHeadsWidthAKey) {
  const RunWork work{.attended = 7};
  EXPECT_DOUBLE_EQ(training_flops(tiny(), std::nullopt, work), 12 * 8 * 7);
}

TEST(Flops, KeysAreACausalTriangleCutAtTheWindow) {
  EXPECT_DOUBLE_EQ(attended_keys(tiny(), 5), 2 * (1 + 2 + 3 + 4 + 5));
  Json config = tiny_config();
  config["sliding_window"] = 2;
  config["layer_types"] = {"full_attention", "sliding_attention"};
  const model::ModelSpec spec = spec_of(config);
  EXPECT_DOUBLE_EQ(attended_keys(spec, 5), (1 + 2 + 3 + 4 + 5) + (1 + 2 + 2 + 2 + 2));
  EXPECT_DOUBLE_EQ(attended_keys(spec, 1), 2);
}

/// The rule of thumb for it: about 2 GFLOP a token for LoRA.
TEST(Flops, OfTheHalfBillionModelAreWhatIsKnownOfIt) {
  Json config = tiny_config();
  config["vocab_size"] = 151936;
  config["hidden_size"] = 896;
  config["intermediate_size"] = 4864;
  config["num_hidden_layers"] = 24;
  config["num_attention_heads"] = 14;
  config["num_key_value_heads"] = 2;
  config["head_dim"] = 64;
  const RunWork work{.tokens = 1, .targets = 1};
  EXPECT_NEAR(training_flops(spec_of(config), model::LoraConfig(), work), 2.03e9, 0.02e9);
}

}  // namespace
}  // namespace lorry::train
