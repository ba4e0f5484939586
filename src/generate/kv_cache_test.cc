#include "generate/kv_cache.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace lorry::generate {
namespace {

constexpr int64_t kBlock = KvCache::kBlockTokens;

KvCache make_cache(int64_t tokens) {
  return KvCache({{2, 8, 8}, {1, 12, 4}}, tokens, at::kFloat, {at::kCPU});
}

/// Writes `value` as every key of token `position`.
void write(KvCache& cache, const KvCache::Sequence& sequence, int64_t position, double value) {
  cache.keys(0)[sequence.blocks[position / kBlock]][position % kBlock].fill_(value);
}
double read(const KvCache& cache, const KvCache::Sequence& sequence, int64_t position) {
  const at::Tensor token = cache.keys(0)[sequence.blocks[position / kBlock]][position % kBlock];
  return token.mean().item<double>();
}

/// Reserves and writes token after token: its value is its position + `shift`.
void append(KvCache& cache, KvCache::Sequence& sequence, int64_t tokens, double shift = 0) {
  ASSERT_TRUE(cache.reserve(sequence, sequence.length + tokens));
  for (int64_t i = 0; i < tokens; ++i, ++sequence.length) {
    write(cache, sequence, sequence.length, static_cast<double>(sequence.length) + shift);
  }
}

TEST(KvCache, GivesOutBlocksUntilNoneIsLeft) {
  KvCache cache = make_cache(100);
  EXPECT_EQ(cache.free_tokens(), 128);
  KvCache::Sequence a, b;
  EXPECT_TRUE(cache.reserve(a, 40));
  EXPECT_TRUE(cache.reserve(a, 64));
  EXPECT_EQ(a.blocks.size(), 2u);
  EXPECT_FALSE(cache.reserve(b, 65));
  EXPECT_TRUE(b.blocks.empty());
  cache.release(a);
  EXPECT_TRUE(cache.reserve(b, 128));
}

TEST(KvCache, EachLayerHasItsOwnWidths) {
  const KvCache cache = make_cache(64);
  EXPECT_EQ(cache.layers(), 2);
  EXPECT_EQ(cache.keys(1).sizes(), (std::vector<int64_t>{2, kBlock, 1, 12}));
  EXPECT_EQ(cache.values(1).sizes(), (std::vector<int64_t>{2, kBlock, 1, 4}));
}

TEST(KvCache, AForkSharesBlocksUntilOneOfThemWrites) {
  KvCache cache = make_cache(8 * kBlock);
  KvCache::Sequence a;
  append(cache, a, kBlock + 5);
  KvCache::Sequence b = cache.fork(a);
  EXPECT_EQ(b.blocks, a.blocks);
  EXPECT_EQ(cache.free_tokens(), 6 * kBlock);
  append(cache, b, 1, 1000);
  EXPECT_EQ(b.blocks[0], a.blocks[0]);  // full: shared for good
  EXPECT_NE(b.blocks[1], a.blocks[1]);  // partly filled: copied
  append(cache, a, 1, 2000);
  EXPECT_EQ(read(cache, a, kBlock + 5), kBlock + 2005.0);
  EXPECT_EQ(read(cache, b, kBlock + 5), kBlock + 1005.0);
  for (int64_t i = 0; i < kBlock + 5; ++i) EXPECT_EQ(read(cache, b, i), static_cast<double>(i));
  EXPECT_EQ(cache.free_tokens(), 5 * kBlock);
  cache.release(a);
  for (int64_t i = 0; i < kBlock + 5; ++i) EXPECT_EQ(read(cache, b, i), static_cast<double>(i));
  cache.release(b);
  EXPECT_EQ(cache.free_tokens(), 8 * kBlock);
}

TEST(KvCache, AFullBlockIsNotCopied) {
  KvCache cache = make_cache(3 * kBlock);
  KvCache::Sequence a;
  append(cache, a, kBlock);
  KvCache::Sequence b = cache.fork(a);
  append(cache, a, 1);
  append(cache, b, 1);
  EXPECT_EQ(a.blocks[0], b.blocks[0]);
  EXPECT_EQ(cache.free_tokens(), 0);
}

TEST(KvCache, ACopyThatDoesNotFitChangesNothing) {
  KvCache cache = make_cache(2 * kBlock);
  KvCache::Sequence a;
  append(cache, a, kBlock + 1);
  KvCache::Sequence b = cache.fork(a);
  const auto before = b.blocks;
  EXPECT_FALSE(cache.reserve(b, kBlock + 2));
  EXPECT_EQ(b.blocks, before);
  cache.release(a);
  EXPECT_TRUE(cache.reserve(b, kBlock + 2));  // now its own
  EXPECT_EQ(b.blocks, before);
}

TEST(KvCache, TruncatingDropsBlocksAndKeepsWhatOthersHold) {
  KvCache cache = make_cache(4 * kBlock);
  KvCache::Sequence a;
  append(cache, a, 3 * kBlock);
  const KvCache::Sequence b = cache.fork(a);
  cache.truncate(a, kBlock + 3);
  EXPECT_EQ(a.blocks.size(), 2u);
  EXPECT_EQ(cache.free_tokens(), kBlock);  // b holds the third
  append(cache, a, 1, 500);
  EXPECT_EQ(read(cache, a, kBlock + 3), kBlock + 503.0);
  EXPECT_EQ(read(cache, b, kBlock + 3), kBlock + 3.0);
}

TEST(KvCache, APrefixOutlivesTheSequenceThatMadeIt) {
  KvCache cache = make_cache(4 * kBlock);
  KvCache::Sequence a, b;
  append(cache, a, kBlock + 7);
  const int32_t prefix = a.blocks[0];
  cache.retain(prefix);
  cache.release(a);
  EXPECT_EQ(cache.free_tokens(), 3 * kBlock);
  cache.attach(b, std::span(&prefix, 1));
  EXPECT_EQ(b.length, kBlock);
  append(cache, b, 1);
  cache.release(prefix);
  EXPECT_EQ(read(cache, b, 9), 9.0);
  cache.release(b);
  EXPECT_EQ(cache.free_tokens(), 4 * kBlock);
}

}  // namespace
}  // namespace lorry::generate
