// What the scheduler computes of sequences that begin alike.
#include <gtest/gtest.h>

#include <algorithm>

#include "generate/scheduler_fixture.h"

namespace lorry::generate {
namespace {

constexpr int64_t kBlock = KvCache::kBlockTokens;

/// A scheduler of one model whose steps are noted.
struct Noting {
  explicit Noting(SchedulerOptions options = {}, int64_t keys_change_after = 0,
                  int64_t capacity = 1000)
      : scheduler(options) {
    scheduler.add_model(std::make_unique<NotingModel>(&seen, 64, keys_change_after, capacity));
  }
  void submit(int key, SequenceRequest request) {
    ASSERT_TRUE(scheduler
                    .submit(0, std::move(request),
                            [this, key, next = collector.on_token(key)](TokenEvent event) {
                              cached[key] = event.cached_tokens;
                              next(std::move(event));
                            })
                    .ok());
  }
  /// Answers it before it returns.
  void ask(int key, SequenceRequest request) {
    const size_t ended = collector.finish_.size();  // before it is submitted: it may end at once
    submit(key, std::move(request));
    if (!started) scheduler.start();
    started = true;
    collector.wait(ended + 1);
  }
  int64_t computed() const {
    int64_t tokens = 0;
    for (const auto& step : seen) tokens += step[1];
    return tokens;
  }

  std::vector<NotingModel::Step> seen;
  std::map<int, int64_t> cached;
  Collector collector;
  Scheduler scheduler;
  bool started = false;
};

TEST(PrefixSharing, ChoicesOfOnePromptComputeItOnce) {
  Noting f;
  const std::vector<int32_t> prompt = counting(0, 5 * kBlock + 3);
  for (int i = 0; i < 4; ++i) f.submit(i, greedy(prompt, 2));
  f.scheduler.start();
  f.collector.wait(4);
  // Each computes what follows the last full block, and one token of its answer.
  EXPECT_EQ(f.computed(), 5 * kBlock + 4 * (3 + 1));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(f.collector.tokens_[i], counting(5 * kBlock + 3, 2));
    EXPECT_EQ(f.cached[i], i == 0 ? 0 : 5 * kBlock);
  }
  const QueueState state = f.scheduler.state(0);
  EXPECT_EQ(state.prefix_queries, 4u * prompt.size());
  EXPECT_EQ(state.prefix_hits, 3u * 5 * kBlock);
}

TEST(PrefixSharing, AnAnswerIsPartOfThePrefixOfTheNextTurn) {
  Noting f;
  f.ask(0, greedy(counting(0, 20), 50));
  f.ask(1, greedy(counting(0, 80), 5));
  EXPECT_EQ(f.cached[1], 2 * kBlock);  // the last of the 70 tokens was never computed
  EXPECT_EQ(f.collector.tokens_[1], counting(80, 5));
}

TEST(PrefixSharing, OthersStartWhileASequenceWaitsForItsPrefix) {
  Noting f;
  f.submit(0, greedy(counting(0, 3 * kBlock + 1), 1));
  f.submit(1, greedy(counting(0, 3 * kBlock + 1), 1));
  f.submit(2, greedy(counting(30, 10), 1));
  f.scheduler.start();
  f.collector.wait(3);
  EXPECT_EQ(f.collector.order_, (std::vector<int>{0, 2, 1}));
  EXPECT_EQ(f.cached[1], 3 * kBlock);
}

TEST(PrefixSharing, ThePromptIsComputedWhereItIsScored) {
  Noting f;
  SequenceRequest scoring = greedy(counting(0, 3 * kBlock), 1);
  scoring.score_prompt = true;
  f.ask(0, greedy(counting(0, 3 * kBlock), 1));
  f.ask(1, scoring);
  EXPECT_EQ(f.cached[1], 0);
  EXPECT_EQ(f.computed(), 2 * 3 * kBlock);
  f.ask(2, greedy(counting(0, 3 * kBlock), 1));
  EXPECT_EQ(f.cached[2], 2 * kBlock);
}

TEST(PrefixSharing, APreemptedSequenceFindsItsOwnBlocksAgain) {
  Noting f({}, 0, 8 * kBlock);
  f.submit(0, greedy(counting(0, 3 * kBlock), kBlock));
  f.submit(1, greedy(counting(7, 4 * kBlock - 8), kBlock));
  f.scheduler.start();
  f.collector.wait(2);
  EXPECT_EQ(f.collector.tokens_[0], counting(3 * kBlock, kBlock));
  EXPECT_EQ(f.collector.tokens_[1], counting(4 * kBlock - 1, kBlock));
  // What both bring and all but the last token of each answer; a preempted one again what its last
  // block held.
  EXPECT_LE(f.computed(), 7 * kBlock - 8 + 2 * (kBlock - 1) + 2 * kBlock);
}

TEST(PrefixSharing, KeysOfALongerSequenceAreNotThoseOfAShorterOne) {
  Noting f({}, 2 * kBlock);
  f.ask(0, greedy(counting(0, 2 * kBlock), 1));
  f.ask(1, greedy(counting(0, 3 * kBlock), 1));  // all keys are others
  EXPECT_EQ(f.cached[1], 0);
  f.ask(2, greedy(counting(0, 2 * kBlock),
                  6));  // begins with the first's, goes over with the second's
  EXPECT_EQ(f.cached[2], kBlock);
  EXPECT_EQ(f.collector.tokens_[2], counting(2 * kBlock, 6));
  const NotingModel::Step after{2 * kBlock, 1, 2 * kBlock + 1};
  EXPECT_EQ(std::count(f.seen.begin(), f.seen.end(), after), 1);
}

TEST(PrefixSharing, SequencesOfAnotherAdapterOrSaltComputeForThemselves) {
  Noting f;
  const auto prompt = counting(0, 2 * kBlock + 1);
  f.ask(0, greedy(prompt, 1));
  SequenceRequest adapted = greedy(prompt, 1), salted = greedy(prompt, 1);
  adapted.adapter = std::make_shared<const model::LoraAdapter>();
  salted.cache_salt = "mine";
  f.ask(1, adapted);
  f.ask(2, salted);
  EXPECT_EQ(f.cached[1], 0);
  EXPECT_EQ(f.cached[2], 0);
  f.ask(3, adapted);
  f.ask(4, salted);
  EXPECT_EQ(f.cached[3], 2 * kBlock);
  EXPECT_EQ(f.cached[4], 2 * kBlock);
}

TEST(PrefixSharing, WhenItIsOffEachComputesItsOwnPrompt) {
  Noting f({.enable_prefix_caching = false});
  for (int i = 0; i < 2; ++i) f.ask(i, greedy(counting(0, 2 * kBlock), 1));
  EXPECT_EQ(f.computed(), 4 * kBlock);
  EXPECT_EQ(f.cached[1], 0);
}

}  // namespace
}  // namespace lorry::generate
