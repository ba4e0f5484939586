#include "generate/kv_cache.h"

#include <gtest/gtest.h>

namespace lorry::generate {
namespace {

TEST(KvCache, GivesOutBlocksUntilNoneIsLeft) {
  KvCache cache({{2, 8, 8}, {2, 8, 8}}, 100, at::kFloat, at::kCPU);
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

}  // namespace
}  // namespace lorry::generate
