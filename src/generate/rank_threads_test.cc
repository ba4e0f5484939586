#include "generate/rank_threads.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <stdexcept>

namespace lorry::generate {
namespace {

constexpr int64_t kRanks = 3;

struct Ranks {
  std::shared_ptr<ops::RankGroup> group = std::make_shared<ops::RankGroup>(kRanks);
  RankThreads threads{group};

  /// What each rank gets as the sum of rank + 1 over all, taken `times` times.
  std::vector<float> sums(int times) {
    std::vector<float> out(kRanks);
    threads.run([&](int64_t rank) {
      for (int i = 0; i < times; ++i) {
        const auto part = at::full({2}, static_cast<float>(rank + 1), at::kFloat);
        out[static_cast<size_t>(rank)] += group->sum(rank, part)[1].item<float>();
      }
    });
    return out;
  }
};

TEST(RankThreads, EveryRankGetsTheSumOfAll) {
  Ranks ranks;
  EXPECT_EQ(ranks.sums(1), std::vector<float>(kRanks, 6));
  EXPECT_EQ(ranks.sums(50), std::vector<float>(kRanks, 300));
}

TEST(RankThreads, ARankThatFailsFreesThoseThatWaitAndItsReasonIsThrown) {
  for (int64_t failing = 0; failing < kRanks; ++failing) {
    Ranks ranks;
    const auto work = [&](int64_t rank) {
      if (rank == failing) throw std::runtime_error("no memory");
      ranks.group->sum(rank, at::ones({2}));
    };
    try {
      ranks.threads.run(work);
      FAIL();
    } catch (const std::runtime_error& e) {
      EXPECT_STREQ(e.what(), "no memory");
    }
    EXPECT_EQ(ranks.sums(2), std::vector<float>(kRanks, 12));  // and the next step is sound
  }
}

}  // namespace
}  // namespace lorry::generate
