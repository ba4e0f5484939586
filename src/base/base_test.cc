#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/cancel.h"
#include "base/digest.h"
#include "base/html.h"
#include "base/json.h"
#include "base/parallel.h"
#include "base/result.h"
#include "base/utf8.h"

namespace lorry {
namespace {

Result<int> half(int n) {
  if (n % 2 != 0) return invalid_input("odd");
  return n / 2;
}

Result<int> quarter(int n) {
  LORRY_ASSIGN(const int h, half(n));
  return half(h);
}

TEST(Result, PropagatesTheFirstError) {
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_EQ(quarter(6).error().message, "odd");
  EXPECT_EQ(quarter(6).with_context("x").error().message, "x: odd");
}

TEST(InParallel, EveryItemIsDoneOnceOnAnyNumberOfThreads) {
  for (const int64_t threads : {1, 3, 100}) {
    std::vector<std::atomic<int>> done(50);
    auto all = in_parallel(50, threads, [&](int64_t i) {
      ++done[size_t(i)];
      return Result<>();
    });
    EXPECT_TRUE(all.ok());
    for (const auto& times : done) EXPECT_EQ(times, 1);
  }
  EXPECT_TRUE(in_parallel(0, 4, [](int64_t) { return invalid_input("never"); }).ok());
}

TEST(InParallel, AnErrorEndsTheRest) {
  std::atomic<int> begun = 0;
  auto all = in_parallel(1000, 1, [&](int64_t i) -> Result<> {
    ++begun;
    if (i == 3) return invalid_input("four");
    return {};
  });
  ASSERT_FALSE(all.ok());
  EXPECT_EQ(all.error().message, "four");
  EXPECT_EQ(begun, 4);
}

TEST(Json, AnErrorNamesLineAndColumn) {
  auto bad = parse_json("{\n \"a\": }", "f.json");
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().message, "f.json: not valid JSON at line 2, column 7");
}

TEST(Json, KeepsTheOrderOfKeys) {
  EXPECT_EQ(dump_json(*parse_json(R"({"b":1,"a":2})", "x")), R"({"b":1,"a":2})");
}

TEST(Json, DeepNestingIsRefusedAndBracketsInStringsAreNot) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(parse_json(nested(500), "x").ok());
  EXPECT_EQ(parse_json(nested(1'000'000), "f.json").error().message,
            "f.json: nested more than 500 deep");
  EXPECT_TRUE(parse_json("[\"\\\"" + nested(1000) + std::string(1000, '{') + "\"]", "x").ok());
}

TEST(Sha256, MatchesTheStandardsExamples) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  Sha256 parts;
  for (int i = 0; i < 1000; ++i) parts.update("aaaaaaaaaa");
  EXPECT_EQ(parts.hex(), sha256_hex(std::string(10000, 'a')));
}

TEST(Sha256, GivesTheSameWithAndWithoutTheProcessorsInstructions) {
  std::string bytes;
  uint32_t random = 1;
  for (int i = 0; i < 5000; ++i) bytes += static_cast<char>((random = random * 1664525 + 1) >> 24);
  for (size_t length = 0; length < bytes.size(); length += 1 + length / 3) {
    Sha256 fast, portable(true), parts;
    fast.update({bytes.data(), length});
    portable.update({bytes.data(), length});
    for (size_t i = 0; i < length; i += 37)
      parts.update({bytes.data() + i, std::min<size_t>(37, length - i)});
    const std::string expected = portable.hex();
    EXPECT_EQ(fast.hex(), expected) << length;
    EXPECT_EQ(parts.hex(), expected) << length;
  }
}

TEST(Error, AnEmptyContextAddsNothing) {
  EXPECT_EQ(not_found("x is not there").with_context("").message, "x is not there");
  EXPECT_EQ(not_found("x is not there").with_context("dir").message, "dir: x is not there");
}

TEST(Cancel, ARequestTurnsIntoAnError) {
  reset_cancel();
  EXPECT_TRUE(check_cancelled().ok());
  request_cancel(15);
  EXPECT_EQ(check_cancelled().error().kind, ErrorKind::kCancelled);
  reset_cancel();
}

TEST(EscapeHtml, SpellsEntitiesAsMarkupsafeDoes) {
  EXPECT_EQ(escape_html("a<b> & \"c\" 'd'"), "a&lt;b&gt; &amp; &#34;c&#34; &#39;d&#39;");
}

TEST(Utf8, TheStartOfACharacterIsFoundFromAnyOfItsBytes) {
  std::string text = "a";
  for (const uint32_t code : {0xE9u, 0x4F60u, 0x1F600u}) append_utf8(text, code);
  ASSERT_EQ(text, "a\xC3\xA9\xE4\xBD\xA0\xF0\x9F\x98\x80");
  const std::vector<size_t> starts = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10};
  for (size_t at = 0; at < starts.size(); ++at) EXPECT_EQ(utf8_start(text, at), starts[at]);
}

}  // namespace
}  // namespace lorry
