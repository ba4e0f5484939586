#include "store/claim.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "base/cancel.h"
#include "store/claim_process.h"
#include "store/s3_server_fixture.h"

namespace lorry::store {
namespace {

using std::chrono::milliseconds;

/// What a claim may take in a test before it counts as dead.
void set_seconds(const char* seconds) { ::setenv("LORRY_CLAIM_SECONDS", seconds, 1); }

void sleep_for(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

/// Runs on a directory and on a real S3 server.
class ClaimTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    set_seconds("60");
    std::string uri;
    if (std::string(GetParam()) == "s3") {
      if (const auto& why = S3Server::shared().missing(); !why.empty()) GTEST_SKIP() << why;
      uri = S3Server::shared().new_bucket();
    } else {
      static int serial = 0;
      root_ = std::filesystem::temp_directory_path() /
              ("lorry_claims_" + std::to_string(::getpid()) + "_" + std::to_string(serial++));
      uri = root_.string();
    }
    auto bucket = Bucket::open(uri, true);
    ASSERT_TRUE(bucket.ok()) << bucket.error().message;
    bucket_ = *bucket;
  }
  void TearDown() override {
    ::unsetenv("LORRY_CLAIM_SECONDS");
    std::error_code ignored;
    if (!root_.empty()) std::filesystem::remove_all(root_, ignored);
  }

  std::unique_ptr<Claim> take(const Work& work, bool wait = true) {
    auto claim = Claim::take(bucket_, work, wait);
    EXPECT_TRUE(claim.ok()) << claim.error().message;
    return claim.ok() ? std::move(*claim) : nullptr;
  }
  /// Why it cannot be had at once; empty: it can.
  std::string refused(const Work& work) {
    auto claim = Claim::take(bucket_, work, /*wait=*/false);
    return claim.ok() ? std::string() : claim.error().message;
  }
  std::vector<ObjectInfo> objects() { return *bucket_->list("claims"); }

  /// Makes the only claim there is look like one of this process's own past, or of elsewhere.
  void rewrite(const std::function<void(Json&)>& change) {
    const std::string path = objects().at(0).path;
    Json json = *parse_json(*bucket_->read(path), path);
    change(json);
    ASSERT_TRUE(bucket_->write(path, dump_json(json)).ok());
  }

  std::shared_ptr<Bucket> bucket_;
  std::filesystem::path root_;
};

Work work(std::string writes, std::string key = "a", std::vector<std::string> reads = {}) {
  return {std::move(writes), std::move(reads), "standardize", std::move(key), 0, 1};
}

Work node(int64_t rank, int64_t world_size, std::string key = "a") {
  return {"raw/x", {}, "import-dataset", std::move(key), rank, world_size};
}

TEST_P(ClaimTest, TheSecondIsToldWhoIsAtWorkOnWhatSinceWhen) {
  const auto first = take(work("standardized/x"));
  const std::string why = refused(work("standardized/x", "b"));
  const ProcessId self = ProcessId::self();
  for (const std::string& part :
       {std::string("standardized/x"), self.host, "process " + std::to_string(self.pid),
        std::string("lorry standardize"), std::string("since 20"), std::string(" UTC"),
        std::string("last seen 0 s ago")}) {
    EXPECT_NE(why.find(part), std::string::npos) << part << " is not in: " << why;
  }
}

TEST_P(ClaimTest, TheSameWorkIsDoneOnceAtATime) {
  const auto first = take(work("raw/x", "same"));
  EXPECT_NE(refused(work("raw/x", "same")), "");
}

TEST_P(ClaimTest, WhatIsReadIsNotWrittenMeanwhileAndMayBeReadByOthers) {
  const auto reader = take(work("standardized/x", "a", {"raw/x"}));
  EXPECT_NE(refused(work("raw/x")), "");
  EXPECT_EQ(refused(work("model-ready/m/x", "a", {"raw/x"})), "");
  EXPECT_EQ(refused(work("raw/y")), "");
  const auto writer = take(work("raw/z"));
  EXPECT_NE(refused(work("standardized/z", "a", {"raw/z"})), "");
}

TEST_P(ClaimTest, NodesOfOneWorkAreAtItTogether) {
  const auto first = take(node(0, 3)), second = take(node(1, 3));
  EXPECT_NE(refused(node(1, 3)), "") << "that node is at work already";
  EXPECT_NE(refused(node(0, 1)), "") << "all of it, by one";
  EXPECT_NE(refused(node(2, 4)), "") << "shared otherwise";
  EXPECT_NE(refused(node(2, 3, "b")), "") << "other work";
  const auto crew = first->crew();
  ASSERT_TRUE(crew.ok());
  ASSERT_EQ(crew->size(), 1u);
  EXPECT_EQ((*crew)[0].work.rank, 1);
  EXPECT_FALSE((*crew)[0].dead);
}

TEST_P(ClaimTest, LeavesNothingBehind) {
  { const auto claim = take(work("raw/x")); }
  EXPECT_EQ(refused(work("raw/x")), "");
  EXPECT_TRUE(objects().empty());
  EXPECT_TRUE(bucket_->list("")->empty());
}

TEST_P(ClaimTest, WaitsUntilTheHolderIsDone) {
  auto first = take(work("raw/x", "a"));
  std::atomic<bool> released = false;
  std::thread second([&] {
    const auto claim = take(work("raw/x", "b"));
    EXPECT_TRUE(released);
  });
  sleep_for(0.5);
  released = true;
  first.reset();
  second.join();
}

TEST_P(ClaimTest, AWaitEndsWhenAStopIsAskedFor) {
  const auto first = take(work("raw/x", "a"));
  std::thread second([&] {
    const auto claim = Claim::take(bucket_, work("raw/x", "b"), true);
    ASSERT_FALSE(claim.ok());
    EXPECT_EQ(claim.error().kind, ErrorKind::kCancelled);
  });
  sleep_for(0.3);
  request_cancel(SIGINT);
  second.join();
  reset_cancel();
  EXPECT_EQ(objects().size(), 1u) << "the one that waited has taken its claim with it";
}

/// Many who want the same, some to read it: whoever is in is there by right. Mutual exclusion is
/// looked at through counters that the claims alone protect.
TEST_P(ClaimTest, NeverTwoAtATimeAndEveryoneInTheEnd) {
  constexpr int kThreads = 6, kRounds = 4;
  std::atomic<int> writers = 0, readers = 0, done = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937 random(static_cast<unsigned>(i));
      for (int round = 0; round < kRounds; ++round) {
        sleep_for(random() % 30 / 1000.0);
        const bool writes = random() % 3 > 0;
        const std::string key = std::to_string(random() % 2);
        const auto claim = writes ? take(work("raw/x", key))
                                  : take(work("out/" + std::to_string(i), key, {"raw/x"}));
        ASSERT_TRUE(claim);
        (writes ? writers : readers)++;
        for (int look = 0; look < 5; ++look) {
          EXPECT_LE(writers, 1);
          EXPECT_TRUE(writers == 0 || readers == 0);
          sleep_for(random() % 8 / 1000.0);
        }
        (writes ? writers : readers)--;
        ++done;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(done, kThreads * kRounds);
  EXPECT_TRUE(objects().empty());
}

TEST_P(ClaimTest, AProcessOfThisMachineThatIsGoneHoldsNothing) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  const auto first = take(work("raw/x", "a"));
  rewrite([&](Json& claim) { claim["pid"] = int64_t(child); });
  EXPECT_EQ(refused(work("raw/x", "b")), "");
}

TEST_P(ClaimTest, AnotherProcessWithTheNumberOfADeadOneIsNotTakenForIt) {
  const auto first = take(work("raw/x", "a"));
  rewrite([&](Json& claim) { claim["start"] = claim["start"].get<int64_t>() - 1; });
  EXPECT_EQ(refused(work("raw/x", "b")), "");
}

TEST_P(ClaimTest, AProcessElsewhereHoldsItsClaimUntilItRunsOut) {
  set_seconds("4");
  auto first = take(work("raw/x", "a"));
  const std::string path = objects().at(0).path;
  Json json = *parse_json(*bucket_->read(path), path);
  json["machine"] = "another";
  json["host"] = "elsewhere";
  json["pid"] = 1;
  // One that nobody keeps alive.
  ASSERT_TRUE(bucket_->write("claims/elsewhere-1-0.json", dump_json(json)).ok());
  first.reset();
  EXPECT_NE(refused(work("raw/x", "b")).find("elsewhere"), std::string::npos);
  const auto begin = std::chrono::steady_clock::now();
  const auto second = take(work("raw/x", "b"));
  EXPECT_GT(std::chrono::steady_clock::now() - begin, milliseconds(900));
  EXPECT_EQ(objects().size(), 1u) << "the dead one is cleared away";
}

TEST_P(ClaimTest, AHolderStaysAliveLongerThanAClaimLives) {
  set_seconds("2");
  const auto first = take(work("raw/x", "a"));
  const auto end = std::chrono::steady_clock::now() + milliseconds(5000);
  while (std::chrono::steady_clock::now() < end) {
    if (refused(work("raw/x", "b")).empty()) {
      // Only a machine that is too busy to give signs of life may let it come to this.
      EXPECT_FALSE(first->confirm().ok()) << "two hold the same";
      GTEST_SKIP() << "this machine was busy for longer than a claim lives";
    }
    sleep_for(0.1);
  }
  EXPECT_TRUE(first->bucket()->write("raw/x/y", "still mine").ok());
}

TEST_P(ClaimTest, WhoeverWasTakenOverWritesNoMore) {
  const auto first = take(work("raw/x", "a"));
  ASSERT_TRUE(first->bucket()->write("raw/x/y", "a").ok());
  // As if this process had been asleep: its claim was found dead and removed.
  const auto mine = objects();
  ASSERT_EQ(mine.size(), 1u);
  ASSERT_TRUE(bucket_->remove(mine[0].path).ok());
  const auto second = take(work("raw/x", "b"));
  const auto confirmed = first->confirm();
  ASSERT_FALSE(confirmed.ok());
  EXPECT_EQ(confirmed.error().kind, ErrorKind::kUnavailable);
  EXPECT_NE(confirmed.error().message.find("taken over"), std::string::npos);
  EXPECT_FALSE(first->bucket()->write("raw/x/y", "mixed").ok());
  EXPECT_FALSE(first->bucket()->remove("raw/x/y").ok());
  EXPECT_EQ(*bucket_->read("raw/x/y"), "a");
  EXPECT_TRUE(second->confirm().ok());
}

TEST_P(ClaimTest, ListsTheLivingForStatus) {
  const auto first = take(work("raw/x", "a"));
  const auto claimants = list_claimants(*bucket_);
  ASSERT_TRUE(claimants.ok());
  ASSERT_EQ(claimants->size(), 1u);
  EXPECT_TRUE((*claimants)[0].held);
  EXPECT_EQ(to_json((*claimants)[0])["writes"], "raw/x");
}

INSTANTIATE_TEST_SUITE_P(Stores, ClaimTest, testing::Values("local", "s3"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace lorry::store
