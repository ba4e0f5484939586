#include "generate/prefix_cache.h"

#include <gtest/gtest.h>

#include <numeric>

#include "model/lora.h"

namespace lorry::generate {
namespace {

constexpr int64_t kBlock = KvCache::kBlockTokens;

std::vector<int32_t> counting(int32_t from, int64_t n) {
  std::vector<int32_t> out(static_cast<size_t>(n));
  std::iota(out.begin(), out.end(), from);
  return out;
}

/// Blocks without tensors.
struct Fixture {
  explicit Fixture(int64_t blocks, bool enabled = true)
      : cache({}, blocks * kBlock, at::kFloat, {at::kCPU}), prefixes(cache, enabled) {}

  /// A sequence as the scheduler runs it: begins with what is known, computes the rest.
  PrefixCache::Sequence run(const std::vector<int32_t>& tokens, uint64_t root,
                            std::string_view salt = {}) {
    PrefixCache::Sequence sequence;
    const auto length = static_cast<int64_t>(tokens.size());
    prefixes.begin(sequence, root, salt, tokens, length - 1);
    found = sequence.length;
    EXPECT_TRUE(prefixes.reserve(sequence, length));
    sequence.length = length;
    prefixes.extend(sequence, salt, tokens);
    return sequence;
  }
  PrefixCache::Sequence run(const std::vector<int32_t>& tokens) {
    return run(tokens, prefixes.root(nullptr, 0));
  }

  KvCache cache;
  PrefixCache prefixes;
  int64_t found = 0;  // tokens, by the last run
};

TEST(PrefixCache, SequencesThatBeginAlikeShareTheirFullBlocks) {
  Fixture f(16);
  std::vector<int32_t> tokens = counting(0, 3 * kBlock + 5);
  PrefixCache::Sequence a = f.run(tokens);
  EXPECT_EQ(f.found, 0);
  tokens[2 * kBlock + 1] = 9999;
  PrefixCache::Sequence b = f.run(tokens);
  EXPECT_EQ(f.found, 2 * kBlock);
  EXPECT_EQ(b.blocks[0], a.blocks[0]);
  EXPECT_EQ(b.blocks[1], a.blocks[1]);
  EXPECT_NE(b.blocks[2], a.blocks[2]);
  EXPECT_EQ(f.prefixes.free_tokens(), (16 - 6) * kBlock);
}

TEST(PrefixCache, ABlockIsKnownByAllThatIsBeforeIt) {
  Fixture f(16);
  std::vector<int32_t> tokens = counting(0, 2 * kBlock + 1);
  f.run(tokens);
  tokens[0] = 9999;  // the second block has the same ids as before
  f.run(tokens);
  EXPECT_EQ(f.found, 0);
}

TEST(PrefixCache, BlocksStayKnownWhenTheirSequenceHasEnded) {
  Fixture f(16);
  const std::vector<int32_t> tokens = counting(0, 4 * kBlock);
  PrefixCache::Sequence a = f.run(tokens);
  f.prefixes.release(a);
  EXPECT_TRUE(a.blocks.empty());
  EXPECT_EQ(f.prefixes.free_tokens(), 16 * kBlock);
  f.run(tokens);
  EXPECT_EQ(f.found, 3 * kBlock);  // the last token is always computed, and so its block
}

TEST(PrefixCache, TheBlocksUsedTheLongestAgoAreEvictedFirstAndTheLastOfASequenceBeforeItsFirst) {
  Fixture f(8);
  const std::vector<int32_t> old_tokens = counting(0, 3 * kBlock + 1);
  const std::vector<int32_t> young_tokens = counting(1000, 3 * kBlock + 1);
  PrefixCache::Sequence old_one = f.run(old_tokens), young = f.run(young_tokens);
  f.prefixes.release(old_one);
  f.prefixes.release(young);
  PrefixCache::Sequence other = f.run(counting(2000, 3 * kBlock + 1));
  f.prefixes.release(other);  // took the two free blocks and two of the old ones
  PrefixCache::Sequence again = f.run(young_tokens);
  EXPECT_EQ(f.found, 3 * kBlock);
  f.prefixes.release(again);
  f.run(old_tokens);
  EXPECT_LE(f.found, kBlock);
}

TEST(PrefixCache, BlocksInUseAreNeverEvicted) {
  Fixture f(4);
  PrefixCache::Sequence a = f.run(counting(0, 3 * kBlock));
  PrefixCache::Sequence b;
  f.prefixes.begin(b, a.root, {}, counting(500, kBlock), 0);
  EXPECT_FALSE(f.prefixes.reserve(b, 2 * kBlock));
  EXPECT_TRUE(b.blocks.empty());
  EXPECT_TRUE(f.prefixes.reserve(b, kBlock));
  f.prefixes.release(a);
  EXPECT_TRUE(f.prefixes.reserve(b, 4 * kBlock));
}

TEST(PrefixCache, WhatTwoComputedAtTheSameTimeIsKeptOnce) {
  Fixture f(16);
  const std::vector<int32_t> tokens = counting(0, 2 * kBlock + 1);
  PrefixCache::Sequence a, b;
  const uint64_t root = f.prefixes.root(nullptr, 0);
  for (PrefixCache::Sequence* sequence : {&a, &b}) {
    f.prefixes.begin(*sequence, root, {}, tokens, 2 * kBlock);
    ASSERT_TRUE(f.prefixes.reserve(*sequence, 2 * kBlock + 1));
  }
  for (PrefixCache::Sequence* sequence : {&a, &b}) {
    sequence->length = 2 * kBlock + 1;
    f.prefixes.extend(*sequence, {}, tokens);
  }
  EXPECT_EQ(a.blocks[0], b.blocks[0]);
  EXPECT_EQ(a.blocks[1], b.blocks[1]);
  EXPECT_NE(a.blocks[2], b.blocks[2]);
  EXPECT_EQ(f.prefixes.free_tokens(), (16 - 4) * kBlock);
  f.prefixes.release(a);
  f.prefixes.release(b);
  EXPECT_EQ(f.prefixes.free_tokens(), 16 * kBlock);
}

TEST(PrefixCache, AdaptersVariantsAndSaltsShareNothing) {
  Fixture f(64);
  const std::vector<int32_t> tokens = counting(0, 2 * kBlock + 1);
  auto adapter = std::make_shared<const model::LoraAdapter>();
  const uint64_t base = f.prefixes.root(nullptr, 0);
  const uint64_t first = f.prefixes.root(adapter, 0);
  f.run(tokens, base);
  for (const uint64_t root : {first, f.prefixes.root(nullptr, 1), f.prefixes.root(adapter, 1)}) {
    f.run(tokens, root);
    EXPECT_EQ(f.found, 0);
    f.run(tokens, root);
    EXPECT_EQ(f.found, 2 * kBlock);
  }
  f.run(tokens, base, "secret");
  EXPECT_EQ(f.found, 0);
  f.run(tokens, base, "secret");
  EXPECT_EQ(f.found, 2 * kBlock);
  EXPECT_EQ(f.prefixes.root(adapter, 0), first);
  // One that takes the place of another, perhaps its memory too, is another.
  adapter = std::make_shared<const model::LoraAdapter>();
  f.run(tokens, f.prefixes.root(adapter, 0));
  EXPECT_EQ(f.found, 0);
}

TEST(PrefixCache, NothingIsKnownWhenItIsOff) {
  Fixture f(16, /*enabled=*/false);
  const std::vector<int32_t> tokens = counting(0, 3 * kBlock);
  PrefixCache::Sequence a = f.run(tokens);
  f.prefixes.release(a);
  EXPECT_EQ(f.cache.free_tokens(), 16 * kBlock);
  f.run(tokens);
  EXPECT_EQ(f.found, 0);
}

TEST(PrefixCache, BlocksForTokensThatWereNotTakenAreGivenBack) {
  Fixture f(16);
  PrefixCache::Sequence a = f.run(counting(0, 2 * kBlock));
  ASSERT_TRUE(f.prefixes.reserve(a, 2 * kBlock + 3));
  f.prefixes.trim(a, 2 * kBlock);
  EXPECT_EQ(a.blocks.size(), 2u);
  EXPECT_EQ(a.length, 2 * kBlock);
}

}  // namespace
}  // namespace lorry::generate
