// Checkpoints: committed whole or not at all, bounded in size, and old ones are still read.
#include "train/checkpoint.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "train/test_model.h"

namespace lorry::train {
namespace {

namespace fs = std::filesystem;

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest()
      : claim_(*store::Claim::take(*bucket_, {"done/m/d", {}, "train", "key", 0, 1}, false)),
        root_(bucket_.dir() + "/checkpoints/m/d") {
    write_checkpoint(**bucket_, {.layers = 1});
    model_ = load_model(**bucket_, at::kFloat);
    adapter_ = random_adapter(*model_, {}, 0.1);
    trainable_ = Trainable::of_adapter(adapter_, at::kFloat);
    optimizer_ = std::make_unique<AdamW>(trainable_, AdamWOptions{});
  }

  CheckpointStore store(const std::string& data = "a") {
    return CheckpointStore(*claim_, "checkpoints/m/d",
                           Json{{"base", "b"}, {"data", data}, {"options", {{"seed", 1}}}});
  }

  /// Takes steps up to `step`.
  void advance(RunState& state, int64_t step) {
    while (state.step < step) {
      ++state.step;
      state.last = StepMetrics{.step = state.step, .loss = 1.0 / double(state.step)};
      state.pending.push_back(*state.last);
    }
  }

  std::vector<int64_t> steps_of(const MetricsParts& parts, int64_t last) {
    std::vector<int64_t> steps;
    const auto read = parts.for_each(last, [&](std::string_view lines) -> Result<> {
      for (; !lines.empty(); lines.remove_prefix(lines.find('\n') + 1)) {
        steps.push_back(parse_metrics_line(lines.substr(0, lines.find('\n')))->step);
      }
      return {};
    });
    EXPECT_TRUE(read.ok()) << read.error().message;
    return steps;
  }

  TestBucket bucket_;
  std::unique_ptr<store::Claim> claim_;
  std::string root_;
  std::shared_ptr<model::Transformer> model_;
  std::shared_ptr<model::LoraAdapter> adapter_;
  Trainable trainable_;
  std::unique_ptr<AdamW> optimizer_;
};

TEST_F(CheckpointTest, EachWritesTheLinesSinceTheLastAndTheyJoin) {
  auto checkpoints = store();
  RunState state;
  for (const int64_t step : {3, 5, 9}) {
    advance(state, step);
    ASSERT_TRUE(checkpoints.save(state, trainable_, *optimizer_).ok());
    EXPECT_TRUE(state.pending.empty());
  }
  ASSERT_TRUE(checkpoints.wait().ok());
  EXPECT_EQ(steps_of(checkpoints.metrics(), 9), (std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_TRUE(fs::exists(root_ + "/metrics/000000005-000000009.jsonl"));
  EXPECT_FALSE(fs::exists(root_ + "/step-000005"));

  std::string other_run;
  auto again = store();
  const auto found = again.find(other_run);
  ASSERT_TRUE(found.ok() && *found);
  EXPECT_EQ((*found)->state.step, 9);
  EXPECT_EQ((*found)->state.last->loss, 1.0 / 9);
  EXPECT_TRUE((*found)->state.pending.empty());
}

TEST_F(CheckpointTest, TheRecordIsThatOfItsStepThoughTrainingGoesOn) {
  auto checkpoints = store();
  RunState state;
  advance(state, 2);
  const at::NoGradGuard no_grad;
  const at::Tensor before = trainable_.params()[0].clone();
  ASSERT_TRUE(checkpoints.save(state, trainable_, *optimizer_).ok());
  trainable_.params()[0].fill_(7);  // while it is being written
  advance(state, 3);
  ASSERT_TRUE(checkpoints.wait().ok());
  std::string other_run;
  auto again = store();
  const auto found = again.find(other_run);
  ASSERT_TRUE(found.ok() && *found);
  ASSERT_TRUE(again.load(**found, trainable_, *optimizer_).ok());
  EXPECT_TRUE(at::equal(trainable_.params()[0], before));
  EXPECT_EQ((*found)->state.step, 2);
}

TEST_F(CheckpointTest, LinesAfterTheCommittedStepAreForgotten) {
  auto checkpoints = store();
  RunState state;
  advance(state, 4);
  ASSERT_TRUE(checkpoints.save(state, trainable_, *optimizer_).ok());
  ASSERT_TRUE(checkpoints.wait().ok());
  // Killed between the lines and latest.json of step 6; then saved at step 5 and 6.
  ASSERT_TRUE(checkpoints.metrics().write(4, 6, "not to be read\n").ok());
  std::string other_run;
  auto again = store();
  const auto found = again.find(other_run);
  ASSERT_TRUE(found.ok() && *found);
  state = (*found)->state;
  for (const int64_t step : {5, 6}) {
    advance(state, step);
    ASSERT_TRUE(again.save(state, trainable_, *optimizer_).ok());
  }
  ASSERT_TRUE(again.wait().ok());
  EXPECT_EQ(steps_of(again.metrics(), 6), (std::vector<int64_t>{1, 2, 3, 4, 5, 6}));
}

TEST_F(CheckpointTest, AFailedWriteIsAnErrorOfTheNextCallAndLeavesTheOneBefore) {
  auto checkpoints = store();
  RunState state;
  advance(state, 2);
  ASSERT_TRUE(checkpoints.save(state, trainable_, *optimizer_).ok());
  ASSERT_TRUE(checkpoints.wait().ok());
  // A file stands where the next record's directory must go.
  ASSERT_TRUE((*bucket_)->write("checkpoints/m/d/step-000003", "x").ok());
  advance(state, 3);
  ASSERT_TRUE(checkpoints.save(state, trainable_, *optimizer_).ok());
  const auto failed = checkpoints.wait();
  ASSERT_FALSE(failed.ok());
  EXPECT_TRUE(failed.error().message.starts_with("saving a checkpoint"));
  std::string other_run;
  auto again = store();
  const auto found = again.find(other_run);
  ASSERT_TRUE(found.ok() && *found);
  EXPECT_EQ((*found)->state.step, 2);
}

TEST_F(CheckpointTest, OneOfAnotherRunStaysUntilItIsReplaced) {
  auto checkpoints = store("a");
  RunState state;
  advance(state, 4);
  ASSERT_TRUE(checkpoints.save(state, trainable_, *optimizer_).ok());
  ASSERT_TRUE(checkpoints.wait().ok());
  std::string other_run;
  auto other = store("c");
  ASSERT_TRUE(other.find(other_run).ok());
  EXPECT_EQ(other_run, "step 4 of another run (the data changed)");
  auto same = store("a");
  EXPECT_TRUE(*same.find(other_run));
  RunState fresh;
  advance(fresh, 4);  // the same step, so the same name
  ASSERT_TRUE(other.save(fresh, trainable_, *optimizer_).ok());
  ASSERT_TRUE(other.wait().ok());
  auto after = store("c");
  const auto found = after.find(other_run);
  ASSERT_TRUE(found.ok() && *found);
  EXPECT_EQ(steps_of(after.metrics(), 4), (std::vector<int64_t>{1, 2, 3, 4}));
  EXPECT_FALSE(fs::exists(root_ + "/metrics"));
}

TEST_F(CheckpointTest, AnOldFormatIsReadAndWrittenAnew) {
  auto checkpoints = store();
  RunState state;
  advance(state, 3);
  ASSERT_TRUE(checkpoints.save(state, trainable_, *optimizer_).ok());
  ASSERT_TRUE(checkpoints.wait().ok());
  // As format 1 had it: the lines in the step's directory.
  const std::string dir = "checkpoints/m/d/step-000003";
  Json json = *parse_json(*(*bucket_)->read(dir + "/state.json"), "state");
  json["format"] = 1;
  json.erase("metrics");
  json.erase("last");
  ASSERT_TRUE((*bucket_)->write(dir + "/state.json", dump_json(json)).ok());
  fs::rename(root_ + "/metrics/000000000-000000003.jsonl", root_ + "/step-000003/metrics.jsonl");
  fs::remove(root_ + "/metrics");

  std::string other_run;
  auto again = store();
  auto found = again.find(other_run);
  ASSERT_TRUE(found.ok() && *found);
  EXPECT_TRUE((*found)->is_old_format);
  EXPECT_EQ((*found)->state.pending.size(), 3u);
  ASSERT_TRUE(again.save((*found)->state, trainable_, *optimizer_).ok());
  ASSERT_TRUE(again.wait().ok());
  EXPECT_EQ(steps_of(again.metrics(), 3), (std::vector<int64_t>{1, 2, 3}));
}

}  // namespace
}  // namespace lorry::train
