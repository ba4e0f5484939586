// Operations of a training, against sums made by hand.
#include "train/flops.h"

#include <gtest/gtest.h>

namespace lorry::train {
namespace {

/// Two layers, width 8, 2 heads of 4 with one key head, MLP 16, vocabulary 100.
model::ModelConfig tiny() {
  model::ModelConfig config;
  config.vocab_size = 100;
  config.hidden_size = 8;
  config.intermediate_size = 16;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 2;
  config.num_key_value_heads = 1;
  config.head_dim = 4;
  config.sliding_window = {0, 0};
  return config;
}

// q 8x8, k and v 8x4, o 8x8, gate, up and down 8x16.
constexpr double kBlock = 64 + 32 + 32 + 64 + 3 * 128;

TEST(Flops, AFrozenWeightCostsFourATokenAndATrainedOneSix) {
  const RunWork work{.tokens = 10, .targets = 3};
  EXPECT_DOUBLE_EQ(training_flops(tiny(), std::nullopt, work), 6 * (2 * kBlock * 10 + 800 * 3));
  model::LoraConfig lora;
  lora.r = 2;
  lora.targets = {model::Projection::kQ};
  EXPECT_EQ(lora_parameters(tiny(), lora), 2 * 2 * (8 + 8));
  EXPECT_DOUBLE_EQ(training_flops(tiny(), lora, work),
                   4 * (2 * kBlock * 10 + 800 * 3) + 6 * 64 * 10);
}

TEST(Flops, AttentionCostsTwelveOfTheHeadsWidthAKey) {
  const RunWork work{.attended = 7};
  EXPECT_DOUBLE_EQ(training_flops(tiny(), std::nullopt, work), 12 * 8 * 7);
}

TEST(Flops, KeysAreACausalTriangleCutAtTheWindow) {
  auto config = tiny();
  EXPECT_DOUBLE_EQ(attended_keys(config, 5), 2 * (1 + 2 + 3 + 4 + 5));
  config.sliding_window = {0, 2};
  EXPECT_DOUBLE_EQ(attended_keys(config, 5), (1 + 2 + 3 + 4 + 5) + (1 + 2 + 2 + 2 + 2));
  EXPECT_DOUBLE_EQ(attended_keys(config, 1), 2);
}

/// The rule of thumb for it: about 2 GFLOP a token for LoRA.
TEST(Flops, OfTheHalfBillionModelAreWhatIsKnownOfIt) {
  model::ModelConfig qwen = tiny();
  qwen.vocab_size = 151936;
  qwen.hidden_size = 896;
  qwen.intermediate_size = 4864;
  qwen.num_hidden_layers = 24;
  qwen.num_attention_heads = 14;
  qwen.num_key_value_heads = 2;
  qwen.head_dim = 64;
  qwen.sliding_window.assign(24, 0);
  const RunWork work{.tokens = 1, .targets = 1};
  EXPECT_NEAR(training_flops(qwen, model::LoraConfig(), work), 2.03e9, 0.02e9);
}

}  // namespace
}  // namespace lorry::train
