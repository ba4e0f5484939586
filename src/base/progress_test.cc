#include "base/progress.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <vector>

namespace lorry {
namespace {

TEST(FormatProgress, ShowsShareRateAndTimeLeft) {
  EXPECT_EQ(format_progress("pretokenize", "rows", 500, 0, 1000, 2),
            "pretokenize: 500 of 1,000 rows (50%), 250 rows/s, 2.0 s left");
}

TEST(FormatProgress, WhatAnEarlierRunDidIsNotInTheRate) {
  EXPECT_EQ(format_progress("train", "steps", 600, 500, 1000, 10),
            "train: 600 of 1,000 steps (60%), 10 steps/s, 40 s left");
}

TEST(FormatProgress, AnUnknownTotalHasNoShare) {
  EXPECT_EQ(format_progress("import", "rows", 7, 0, 0, 2), "import: 7 rows, 3.5 rows/s");
}

TEST(FormatProgress, BytesAreScaled) {
  EXPECT_EQ(format_progress("import-model", "bytes", 500'000'000, 0, 2'000'000'000, 1),
            "import-model: 500.0 MB of 2.0 GB (25%), 500.0 MB/s, 3.0 s left");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(999'960), "1.0 MB");
}

TEST(FormatProgress, NothingDoneYetPromisesNoEnd) {
  EXPECT_EQ(format_progress("x", "rows", 0, 0, 10, 0), "x: 0 of 10 rows (0%), 0 rows/s");
}

TEST(FormatDuration, UsesTwoUnitsAtMost) {
  EXPECT_EQ(format_duration(1.25), "1.2 s");
  EXPECT_EQ(format_duration(59.4), "59 s");
  EXPECT_EQ(format_duration(185), "3 min 5 s");
  EXPECT_EQ(format_duration(7500), "2 h 5 min");
}

TEST(FormatCount, GroupsThousands) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1234567), "1,234,567");
  EXPECT_EQ(format_count(-1234), "-1,234");
}

TEST(Progress, PlainLinesSayHowStagesEnded) {
  set_progress_mode(ProgressMode::kPlain);
  testing::internal::CaptureStderr();
  {
    Progress first("first", "rows", 40), second("second", "bytes");
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back([&] { first.add(10); });
    for (auto& thread : threads) thread.join();
    second.set(2000);
    second.finish();
    first.finish();
    first.finish();
  }
  set_progress_mode(ProgressMode::kOff);
  const std::string out = testing::internal::GetCapturedStderr();
  EXPECT_EQ(out.find("second: 2.0 kB in "), 0u) << out;
  EXPECT_NE(out.find("\nfirst: 40 rows in "), std::string::npos) << out;
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 2) << out;
}

}  // namespace
}  // namespace lorry
