#include "inspect/status.h"

#include "stages/pretokenize.h"
#include "stages/stage_fixture.h"

namespace lorry::inspect {
namespace {

class Status : public stages::StageTest {
 protected:
  void pretokenize_talk() {
    stages::PretokenizeOptions options;
    options.bucket = bucket_;
    options.model = "tiny";
    options.dataset = "talk";
    ASSERT_TRUE(stages::pretokenize(options).ok());
  }
};

TEST_F(Status, TokensOfDataThatChangedAreStale) {
  put_model("tiny");
  put_dataset("talk", {{{"user", "a"}, {"assistant", "b"}}}, 1);
  pretokenize_talk();
  ASSERT_TRUE(bucket_->write_info("done/tiny/talk", {{"steps", 1}}).ok());
  EXPECT_EQ((*read_status(*bucket_))["runs"][0]["train"], "done");
  put_dataset("talk", {{{"user", "a"}, {"assistant", "b"}}, {{"user", "c"}, {"assistant", "d"}}},
              2);
  Json run = (*read_status(*bucket_))["runs"][0];
  EXPECT_EQ(run["pretokenize"], "stale");
  EXPECT_EQ(run["train"], "stale");
  EXPECT_EQ(run["next"], "lorry pretokenize --model tiny --dataset talk");
  pretokenize_talk();
  ASSERT_TRUE(
      bucket_->write_info("done/tiny/talk", {{"identity", {{"data", "of the tokens before"}}}})
          .ok());
  run = (*read_status(*bucket_))["runs"][0];
  EXPECT_EQ(run["pretokenize"], "done");
  EXPECT_EQ(run["train"], "stale");
}

TEST_F(Status, TellsDonePartialAndMissingFromTheManifests) {
  put_model("tiny");
  put_dataset("talk", {{{"user", "a"}, {"assistant", "b"}}}, 1);
  ASSERT_TRUE(bucket_->write("raw/half/0/data.arrow", "x").ok());
  ASSERT_TRUE(bucket_->write("checkpoints/tiny/talk/0/state", "x").ok());
  auto status = *read_status(*bucket_);
  EXPECT_EQ(status["datasets"][0]["name"], "half");
  EXPECT_EQ(status["datasets"][0]["raw"], "partial");
  EXPECT_EQ(status["datasets"][1]["standardized"], "done");
  EXPECT_EQ(status["runs"][0]["pretokenize"], "missing");
  EXPECT_EQ(status["runs"][0]["train"], "partial");
  pretokenize_talk();
  status = *read_status(*bucket_);
  EXPECT_EQ(status["runs"][0]["pretokenize"], "done");
  EXPECT_EQ(status["runs"][0]["rows"], 1);
  EXPECT_EQ(status["runs"][0]["next"], "lorry train --model tiny --dataset talk");
  const std::string table = format_status(status);
  for (const char* part : {"half", "partial", "Qwen2ForCausalLM", "next: lorry train"})
    EXPECT_NE(table.find(part), std::string::npos) << part << "\n" << table;
}

}  // namespace
}  // namespace lorry::inspect
