#include "base/crc32c.h"

#include <gtest/gtest.h>

#include <random>

namespace lorry {
namespace {

std::string random_bytes(size_t size) {
  std::mt19937_64 random(size);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = char(random());
  return bytes;
}

TEST(Crc32c, HasTheValuesOfRfc3720) {
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(Crc32c, IsTheSameWithAndWithoutTheProcessorsInstructions) {
  for (size_t size : {1, 7, 8, 9, 767, 768, 769, 3000, 12288, 100'000, 1'000'003}) {
    const std::string bytes = random_bytes(size);
    EXPECT_EQ(crc32c(bytes), crc32c_portable(0, bytes.data(), size)) << size;
  }
}

TEST(Crc32c, GoesOnWhereItStopped) {
  const std::string bytes = random_bytes(70'001);
  for (size_t cut : {0, 1, 13, 4096, 70'000, 70'001}) {
    const uint32_t head = crc32c(0, bytes.data(), cut);
    EXPECT_EQ(crc32c(head, bytes.data() + cut, bytes.size() - cut), crc32c(bytes)) << cut;
  }
}

TEST(Crc32c, CombinesTheChecksumsOfParts) {
  const std::string bytes = random_bytes(70'001);
  for (size_t cut : {0, 1, 13, 4096, 70'000, 70'001}) {
    const uint32_t head = crc32c(0, bytes.data(), cut);
    const uint32_t tail = crc32c(0, bytes.data() + cut, bytes.size() - cut);
    EXPECT_EQ(crc32c_combine(head, tail, bytes.size() - cut), crc32c(bytes)) << cut;
  }
}

TEST(Crc32c, IsWrittenAsEightHexDigits) {
  EXPECT_EQ(crc32c_hex(0xe3069283u), "e3069283");
  EXPECT_EQ(crc32c_hex(0x1f), "0000001f");
}

}  // namespace
}  // namespace lorry
