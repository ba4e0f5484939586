// Right merges pass at any depth; a wrong scale and a missing tensor do not.
#include "train/merge_check.h"

#include <gtest/gtest.h>

#include "train/export.h"
#include "train/test_model.h"

namespace lorry::train {
namespace {

std::vector<int64_t> some_tokens(int64_t vocab) {
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < 64; ++i) ids.push_back((i * 37 + 11) % vocab);
  return ids;
}

class MergeCheckTest : public ::testing::Test {
 protected:
  void make(const TestModel& m, double delta) {
    test_model_ = m;
    write_checkpoint(**bucket_, m);
    model_ = load_model(**bucket_, m.dtype);
    adapter_ = random_adapter(*model_, config_, delta);
    trained_ = run_trained(*model_, adapter_, some_tokens(m.vocab),
                           m.dtype == at::kFloat ? "float32" : "bfloat16");
  }

  /// Merges `adapter` and compares with what adapter_ answered.
  MergeCheck merged(const model::LoraAdapter& adapter) {
    EXPECT_TRUE(export_merged(**bucket_, model_->spec(), adapter, "models/m", "fused").ok());
    const MergeCheck check = compare(trained_, *load_model(**bucket_, test_model_.dtype, "fused"));
    RecordProperty("ratio", std::to_string(check.gap / check.noise));
    return check;
  }

  /// adapter_'s numbers under another configuration.
  std::shared_ptr<model::LoraAdapter> with_config(const model::LoraConfig& config) {
    auto other = random_adapter(*model_, config, 0.1);
    const at::NoGradGuard no_grad;
    const auto from = adapter_->named_parameters();
    const auto to = other->named_parameters();
    for (size_t i = 0; i < from.size(); ++i) to[i].second.copy_(from[i].second);
    return other;
  }

  TestBucket bucket_;
  TestModel test_model_;
  model::LoraConfig config_;
  std::shared_ptr<model::Transformer> model_;
  std::shared_ptr<model::LoraAdapter> adapter_;
  TrainedLogits trained_;
};

TEST_F(MergeCheckTest, ARightMergeOfADeepRandomModelIsWithinItsNoise) {
  // As an 8 B model with random weights: bfloat16 alone moves the logits by a tenth and more.
  make({.layers = 32, .dtype = at::kBFloat16}, 0.02);
  const MergeCheck check = merged(*adapter_);
  EXPECT_GT(check.gap, 0.02) << check.describe();
  EXPECT_EQ(check.verdict(), MergeVerdict::kSame) << check.describe();
}

TEST_F(MergeCheckTest, ARightMergePassesInEveryDtype) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const double delta : {0.0, 0.001, 0.5}) {
      make({.layers = 4, .dtype = dtype}, delta);
      const MergeCheck check = merged(*adapter_);
      EXPECT_EQ(check.verdict(), MergeVerdict::kSame) << delta << ": " << check.describe();
    }
  }
}

TEST_F(MergeCheckTest, AFloat32RunOfABfloat16CheckpointPays16BitRounding) {
  make({.layers = 4, .dtype = at::kBFloat16}, 0.1);
  model_ = load_model(**bucket_, at::kFloat);
  trained_ = run_trained(*model_, adapter_, some_tokens(test_model_.vocab), "bfloat16");
  ASSERT_TRUE(export_merged(**bucket_, model_->spec(), *adapter_, "models/m", "fused").ok());
  const MergeCheck check = compare(trained_, *load_model(**bucket_, at::kFloat, "fused"));
  EXPECT_GT(check.gap, 1e-3);
  EXPECT_EQ(check.verdict(), MergeVerdict::kSame) << check.describe();
}

TEST_F(MergeCheckTest, AShortRunOfABfloat16CheckpointIsNotLostInTheMerge) {
  // All tokens are the same, so every input of the first block is the same vector, and each row of
  // A is that vector. Each weight then changes by much less than its last bit, but all changes add
  // up: the logits move further than they do by rounding the weights.
  make({.layers = 1, .hidden = 512, .width = 512, .dtype = at::kBFloat16}, 0);
  model_ = load_model(**bucket_, at::kFloat);
  const std::vector<int64_t> tokens(16, 5);
  at::Tensor direction = model_->embed(at::full({1}, 5, at::kLong), model::AdapterView::none())[0];
  direction = direction / direction.norm();
  {
    const at::NoGradGuard no_grad;
    for (auto [name, tensor] : adapter_->named_parameters()) {
      if (name.find("lora_A") != std::string::npos) tensor.copy_(direction);
      if (name.find("lora_B") != std::string::npos) tensor.uniform_(2e-5, 4e-5);
    }
  }
  trained_ = run_trained(*model_, adapter_, tokens, "bfloat16");
  const double untrained = compare(trained_, *model_).gap;
  ASSERT_TRUE(export_merged(**bucket_, model_->spec(), *adapter_, "models/m", "fused").ok());
  const MergeCheck check = compare(trained_, *load_model(**bucket_, at::kFloat, "fused"));
  EXPECT_EQ(check.verdict(), MergeVerdict::kSame) << check.describe();
  EXPECT_LT(check.gap, untrained / 2) << untrained << " without any training";
}

TEST_F(MergeCheckTest, AWrongScaleIsWrong) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    config_ = {};
    make({.layers = 8, .dtype = dtype}, 0.1);
    model::LoraConfig twice = config_, rank_stabilised = config_;
    twice.alpha *= 2;
    rank_stabilised.use_rslora = true;
    for (const auto& config : {twice, rank_stabilised}) {
      const MergeCheck check = merged(*with_config(config));
      EXPECT_EQ(check.verdict(), MergeVerdict::kWrong) << check.describe();
    }
  }
}

TEST_F(MergeCheckTest, AMissingTensorIsWrong) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    make({.layers = 4, .dtype = dtype}, 0.2);
    const auto other = with_config(config_);
    const at::NoGradGuard no_grad;
    other->named_parameters()[1].second.zero_();  // B of the first block's q_proj
    const MergeCheck check = merged(*other);
    EXPECT_EQ(check.verdict(), MergeVerdict::kWrong) << check.describe();
  }
}

TEST_F(MergeCheckTest, AnotherLayersTensorIsWrong) {
  make({.layers = 4, .dtype = at::kBFloat16}, 0.2);
  const auto other = with_config(config_);
  const at::NoGradGuard no_grad;
  const auto from = adapter_->named_parameters(), to = other->named_parameters();
  const size_t per_layer = from.size() / 4;
  for (size_t i = 0; i < per_layer; ++i) to[i].second.copy_(from[i + per_layer].second);
  EXPECT_EQ(merged(*other).verdict(), MergeVerdict::kWrong);
}

TEST_F(MergeCheckTest, LeavesModelAndAdapterAsTheyWereAndRepeatsItself) {
  make({.layers = 2, .dtype = at::kBFloat16}, 0.1);
  const auto again = run_trained(*model_, adapter_, trained_.input_ids, "bfloat16");
  EXPECT_TRUE(at::equal(again.logits, trained_.logits));
  EXPECT_EQ(again.noise, trained_.noise);
}

TEST(MergeCheck, WhatIsNoNumberIsWrong) {
  EXPECT_EQ((MergeCheck{.gap = NAN, .noise = 0.1}).verdict(), MergeVerdict::kWrong);
  EXPECT_EQ((MergeCheck{.gap = 0.4, .noise = 0.1}).verdict(), MergeVerdict::kDoubtful);
}

}  // namespace
}  // namespace lorry::train
