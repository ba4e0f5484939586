#include "inspect/names.h"

#include "stages/stage_fixture.h"

namespace lorry::inspect {
namespace {

class Names : public stages::StageTest {};

TEST_F(Names, TheOnlyOneIsChosenAndSeveralAreListed) {
  EXPECT_EQ(choose_model(*bucket_, "").error().kind, ErrorKind::kNotFound);
  put_model("org/tiny");
  EXPECT_EQ(*choose_model(*bucket_, ""), "org/tiny");
  EXPECT_EQ(*choose_model(*bucket_, "org/tiny"), "org/tiny");
  put_model("other");
  const auto several = choose_model(*bucket_, "");
  ASSERT_FALSE(several.ok());
  EXPECT_EQ(several.error().kind, ErrorKind::kUsage);
  EXPECT_NE(several.error().message.find("--model: org/tiny, other"), std::string::npos);
  EXPECT_NE(choose_model(*bucket_, "nope").error().message.find("it has org/tiny, other"),
            std::string::npos);
}

TEST_F(Names, AModelThatIsGoneIsServedAsLongAsWhatWasTrainedOfItIsWhole) {
  put_model("other");
  ASSERT_TRUE(bucket_->write("done/org/tiny/data/info.json", "{}").ok());
  EXPECT_FALSE(choose_served_model(*bucket_, "org/tiny", false).ok());
  ASSERT_TRUE(bucket_->write("done/org/tiny/data/fused/config.json", "{}").ok());
  EXPECT_EQ(*choose_served_model(*bucket_, "org/tiny", false), "org/tiny");
  EXPECT_FALSE(choose_served_model(*bucket_, "org/tiny", true).ok());
  EXPECT_EQ(*choose_served_model(*bucket_, "", false), "other");
}

TEST_F(Names, ANumberRightBelowTheRootIsAName) {
  put_model("2024");
  EXPECT_EQ(*choose_model(*bucket_, ""), "2024");
}

}  // namespace
}  // namespace lorry::inspect
