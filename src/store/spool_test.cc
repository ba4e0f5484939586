#include "store/spool.h"

#include <arrow/buffer.h>
#include <arrow/io/memory.h>
#include <gtest/gtest.h>

namespace lorry::store {
namespace {

TEST(Spool, MapsACopyOfAStream) {
  arrow::io::BufferReader from(arrow::Buffer::FromString("0123456789"));
  auto mapped = spool(from, 10, "s3://b/x");
  ASSERT_TRUE(mapped.ok()) << mapped.error().message;
  EXPECT_TRUE((*mapped)->supports_zero_copy());
  EXPECT_EQ((*mapped)->ReadAt(2, 3).ValueOrDie()->ToString(), "234");
}

TEST(Spool, SaysThatTheDiskIsTooSmall) {
  arrow::io::BufferReader from(arrow::Buffer::FromString("0123456789"));
  auto mapped = spool(from, int64_t{1} << 55, "s3://b/x");
  ASSERT_FALSE(mapped.ok());
  EXPECT_EQ(mapped.error().kind, ErrorKind::kUnavailable);
  for (const char* part : {"s3://b/x", "do not fit in", "set TMPDIR"}) {
    EXPECT_NE(mapped.error().message.find(part), std::string::npos) << mapped.error().message;
  }
}

TEST(Spool, RefusesAStreamOfAnotherLength) {
  for (const int64_t size : {9, 11}) {
    arrow::io::BufferReader from(arrow::Buffer::FromString("0123456789"));
    auto mapped = spool(from, size, "s3://b/x");
    ASSERT_FALSE(mapped.ok());
    EXPECT_EQ(mapped.error().kind, ErrorKind::kCorruptData);
  }
}

}  // namespace
}  // namespace lorry::store
