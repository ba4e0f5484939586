// The list of options, and what makes two runs the same.
#include "train/options.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "train/identity.h"

namespace lorry::train {
namespace {

TrainOptions named() {
  TrainOptions options;
  options.model = "m";
  options.dataset = "d";
  return options;
}

Json identity_of(const TrainOptions& options) {
  return Json{{"base", "b"}, {"data", "d"}, {"options", result_options(options)}};
}

TEST(Options, TheIdentityKeepsItsKeysAndTheirOrder) {
  // Stored in every checkpoint and published run: a change here makes all of them other runs.
  EXPECT_EQ(dump_json(result_options({})),
            R"({"learning_rate":0.0002,"lr_scheduler_type":"linear","warmup_steps":5,)"
            R"("weight_decay":0.01,"adam_beta1":0.9,"adam_beta2":0.999,"adam_epsilon":1e-08,)"
            R"("max_grad_norm":1.0,"batch_size":2,"gradient_accumulation_steps":4,"max_steps":0,)"
            R"("epochs":1.0,"max_length":4096,"packing":false,"shuffle":true,"seed":3407,)"
            R"("full":false,"dtype":"auto","lora_r":16,"lora_alpha":16.0,"lora_dropout":0.0,)"
            R"("target_modules":[]})");
}

TEST(Options, FullTrainingIsNotDecidedByAnAdaptersShape) {
  TrainOptions a = named(), b = named();
  a.full = b.full = true;
  b.lora_r = 64;
  EXPECT_EQ(result_options(a), result_options(b));
}

TEST(Options, EachHasItsFlagOnceAndADefaultThatPasses) {
  std::set<std::string> keys;
  const TrainOptions defaults;
  visit_options(defaults, [&](const OptionSpec& spec, const auto&) {
    EXPECT_TRUE(spec.flag.starts_with("--"));
    EXPECT_FALSE(spec.help.empty()) << spec.flag;
    EXPECT_TRUE(keys.insert(spec.key()).second) << spec.flag;
  });
  EXPECT_TRUE(check_options(named()).ok());
}

TEST(Options, AValueOutOfRangeIsRefusedWithFlagAndUnit) {
  TrainOptions options = named();
  options.max_length = 1;
  EXPECT_EQ(check_options(options).error().message, "--max-length must be at least 2 tokens");
  options = named();
  options.lora_dropout = 1;
  EXPECT_EQ(check_options(options).error().message,
            "--lora-dropout must be at least 0 and below 1");
  options = named();
  options.dtype = "int8";
  EXPECT_NE(check_options(options).error().message.find("--dtype: 'int8' is not one of auto"),
            std::string::npos);
}

TEST(Options, WhatTheStartingAdapterDecidesIsRefusedBesideIt) {
  TrainOptions options = named();
  options.adapter = "start";
  options.lora_dropout = 0.1;
  EXPECT_TRUE(check_options(options).ok());
  options.lora_r = 64;
  options.target_modules = {"q_proj"};
  const auto refused = check_options(options);
  ASSERT_FALSE(refused.ok());
  EXPECT_TRUE(refused.error().message.starts_with("--lora-r, --target-modules: --adapter"))
      << refused.error().message;
}

TEST(Options, FullTrainingOfAQuantisedBaseIsRefused) {
  TrainOptions options = named();
  options.base_format = "nf4";
  EXPECT_TRUE(check_options(options).ok());
  options.full = true;
  EXPECT_NE(check_options(options).error().message.find("--base-format nf4 would freeze"),
            std::string::npos);
}

TEST(Identity, AnotherBaseFormatIsAnotherRun) {
  TrainOptions a = named(), b = named();
  b.base_format = "nf4";
  EXPECT_FALSE(same_run(identity_of(a), identity_of(b)));
}

TEST(Identity, ASplitOfTheSameRowsIsTheSameRun) {
  TrainOptions a = named(), b = named();
  b.batch_size = 1;
  b.gradient_accumulation_steps = 8;
  EXPECT_TRUE(same_run(identity_of(a), identity_of(b)));
  b.batch_size = 2;
  EXPECT_FALSE(same_run(identity_of(a), identity_of(b)));
}

TEST(Identity, ADifferenceNamesOptionsWithBothValuesAndDigestsByName) {
  Json before = identity_of(named());
  TrainOptions changed = named();
  changed.learning_rate = 0.001;
  Json now = identity_of(changed);
  EXPECT_EQ(identity_difference(before, now), "learning_rate was 0.0002, is 0.001");
  before["data"] = std::string(64, 'a');
  now["data"] = std::string(64, 'b');
  EXPECT_EQ(identity_difference(before, now),
            "learning_rate was 0.0002, is 0.001; the data changed");
}

}  // namespace
}  // namespace lorry::train
