#include "train/profile.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace lorry::train {
namespace {

TEST(Profile, TheTableBeginsWithTheLongestAndEndsWithTheSum) {
  const std::string table =
      profile_table({{"short", 0.001, 2}, {"long", 0.006, 3}, {"tiny", 0.0005, 1}}, 0.01, 2);
  EXPECT_EQ(table,
            " 60.00 %      6.000 ms      3 x    2000.0 us  long\n"
            " 10.00 %      1.000 ms      2 x     500.0 us  short\n"
            "  5.00 %      0.500 ms      1 x     500.0 us  others\n"
            " 75.00 %      7.500 ms      6 x    1250.0 us  all\n");
}

TEST(Profile, NamesTheOperatorsAndWritesATrace) {
  const std::string path = testing::TempDir() + "lorry_profile.json";
  StepProfile profile(at::kCPU);
  const at::Tensor x = at::randn({256, 256});
  at::mm(x, x);
  const auto table = profile.finish(path);
  ASSERT_TRUE(table.ok()) << table.error().message;
  EXPECT_NE(table->find("aten::mm"), std::string::npos) << *table;
  std::ifstream file(path);
  const std::string trace{std::istreambuf_iterator<char>(file), {}};
  EXPECT_NE(trace.find("aten::mm"), std::string::npos);
  std::filesystem::remove(path);
}

TEST(Profile, SaysWhereItCannotBeWritten) {
  StepProfile profile(at::kCPU);
  const auto table = profile.finish("/nowhere/at/all/trace.json");
  ASSERT_FALSE(table.ok());
  EXPECT_NE(table.error().message.find("/nowhere/at/all/trace.json"), std::string::npos);
}

}  // namespace
}  // namespace lorry::train
