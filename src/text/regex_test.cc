#include "text/regex.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace lorry::text {
namespace {

using Words = std::vector<std::string>;

Words all_matches(std::string_view pattern, std::string_view text) {
  const auto regex = Regex::compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.error().message;
  Words out;
  if (!regex.ok()) return out;
  Regex::Iterator matches(*regex, text);
  for (Regex::Match m; matches.next(m);) out.emplace_back(text.substr(m.begin, m.end - m.begin));
  return out;
}

TEST(Regex, SplitsAsGpt2Does) {
  EXPECT_EQ(all_matches(R"('s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
                        "it's 42  héllo!\n"),
            (Words{"it", "'s", " 42", " ", " héllo", "!", "\n"}));
}

TEST(Regex, IgnoresCaseWithTheLongSAndTheKelvinSign) {
  EXPECT_EQ(all_matches("(?i:'s)", "'S 'ſ 'x"), (Words{"'S", "'ſ"}));
  EXPECT_EQ(all_matches("(?i)k", "kK\u212A"), (Words{"k", "K", "\u212A"}));
}

TEST(Regex, GivesBackWhatAGreedyRunTookTooMuch) {
  EXPECT_EQ(all_matches("a+ab", "aaab"), (Words{"aaab"}));
  EXPECT_EQ(all_matches("a++ab", "aaab"), Words{});
  EXPECT_EQ(all_matches("(?>a+)ab", "aaab"), Words{});
  EXPECT_EQ(all_matches("a+?", "aa"), (Words{"a", "a"}));
}

TEST(Regex, LooksAheadAndBehind) {
  EXPECT_EQ(all_matches(R"((?<=[a-z])[A-Z](?=[a-z]))", "fooBar BAz"), (Words{"B"}));
  EXPECT_EQ(all_matches(R"((?<!\d)\d{2})", "1234 56"), (Words{"12", "56"}));
}

TEST(Regex, ReadsAnIntervalWithAPlusAsARepeatOfARepeat) {
  EXPECT_EQ(all_matches(R"(\d{1,3}+)", "1234567"), (Words{"1234567"}));
}

TEST(Regex, ReadsNestedClassesAndIntersections) {
  EXPECT_EQ(all_matches(R"([\p{L}&&[^\p{Han}]]+)", "ab世c"), (Words{"ab", "c"}));
  EXPECT_EQ(all_matches("[[:punct:]]+", "a$!b"), (Words{"$!"}));
}

TEST(Regex, StepsOverEmptyMatches) { EXPECT_EQ(all_matches("x*", "axé"), (Words{"", "x", ""})); }

TEST(Regex, NamesWhatItDoesNotSupport) {
  for (const char* pattern :
       {R"((a)\1)", R"(\K)", R"(\p{Nonsense})", "(?<=a+)b", "a(b", "[a", "*"}) {
    const auto regex = Regex::compile(pattern);
    ASSERT_FALSE(regex.ok()) << pattern;
    EXPECT_NE(regex.error().message.find("pattern"), std::string::npos);
  }
}

TEST(Regex, CompilesARepeatOfNothing) {
  EXPECT_EQ(all_matches("(?:(?:){90000}){90000}a", "ba"), (Words{"a"}));
}

TEST(Regex, RefusesWhatWouldRecurseOrOverflow) {
  const auto refused = [](const std::string& pattern) {
    const auto regex = Regex::compile(pattern);
    return !regex.ok() && regex.error().message.size() < 400;
  };
  EXPECT_TRUE(refused("a" + std::string(1'000'000, '*')));
  EXPECT_TRUE(refused("a" + std::string(1'000, '*')));
  EXPECT_TRUE(refused(std::string(10'000, '(') + "a" + std::string(10'000, ')')));
  EXPECT_TRUE(refused("(?<=(?:a{65536}){65536})b"));
}

TEST(Regex, StaysBoundedOnALongRun) {
  const std::string spaces(1 << 20, ' ');
  EXPECT_EQ(all_matches(R"(\s*[\r\n]+|\s+(?!\S)|\s+)", spaces).size(), 1u);
}

}  // namespace
}  // namespace lorry::text
