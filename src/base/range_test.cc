#include "base/range.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lorry {
namespace {

TEST(Range, HoldsItsBoundsUnlessTheyAreOpen) {
  EXPECT_TRUE(at_least(1).contains(1));
  EXPECT_FALSE(at_least(1).contains(0));
  EXPECT_FALSE(above(0).contains(0));
  EXPECT_TRUE(above(0).contains(1e-300));
  EXPECT_TRUE(between(1, 2).contains(2));
  EXPECT_TRUE(below_one().contains(0));
  EXPECT_FALSE(below_one().contains(1));
}

TEST(Range, HoldsNoNumberThatIsNotFinite) {
  EXPECT_FALSE(Range().contains(std::nan("")));
  EXPECT_FALSE(at_least(0).contains(INFINITY));
}

TEST(Range, SaysWhatItHolds) {
  EXPECT_EQ(at_least(1).describe(), "at least 1");
  EXPECT_EQ(above(0).describe(), "greater than 0");
  EXPECT_EQ(between(0, 1024).describe(), "between 0 and 1024");
  EXPECT_EQ(below_one().describe(), "at least 0 and below 1");
  EXPECT_EQ((Range{.min = 0, .max = 1, .above = true}).describe(), "greater than 0 and at most 1");
}

}  // namespace
}  // namespace lorry
