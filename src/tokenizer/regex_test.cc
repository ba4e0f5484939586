#include "tokenizer/regex.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace lorry::tokenizer {
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

// A look-behind that always holds keeps a pattern from becoming an automaton.
std::string for_backtracking(const std::string& pattern) {
  return "(?:" + pattern + ")(?<!\uFFFF)";
}

std::string random_text(std::mt19937& random) {
  static const std::vector<std::string> kParts = {
      "a",      "B",      "z",      "the",     "ll",
      "S",      "'",      "'s",     "'LL",     " ",
      "  ",     "\t",     "\n",     "\r\n",    "1",
      "23",     "4567",   "!",      "...",     "/",
      "_",      "\u00e9", "\u017f", "e\u0301", "\u4e2d\u6587",
      "\u3042", "\u00a0", "\u2003", "\u0662",  "\U0001F600",
      "\u200d", "\u01c5", "\u02b0", "\u0e01",  "\u0e31",
      "$",      "\u20ac", "\u3040", "\u30fb"};
  std::string text;
  for (size_t n = random() % 60; n > 0; --n) {
    const std::string& part = kParts[random() % kParts.size()];
    for (size_t times = random() % 16 == 0 ? random() % 40 : 1; times > 0; --times) text += part;
  }
  return text;
}

/// Most of a text, in pieces; some lie one behind the other.
std::vector<Regex::Match> random_pieces(std::string_view text, std::mt19937& random) {
  std::vector<Regex::Match> pieces;
  const auto end_of_character = [&](size_t at) {
    while (at < text.size() && (text[at] & 0xC0) == 0x80) ++at;
    return std::min(at, text.size());
  };
  for (size_t at = 0; at < text.size();) {
    const size_t longest = random() % 3 == 0 ? text.size() : 40;
    const size_t end = end_of_character(at + 1 + random() % longest);
    if (random() % 4 != 0) pieces.push_back({at, end});
    at = end;
  }
  return pieces;
}

TEST(Regex, MatchesAsAnAutomatonWhatItMatchesByBacktracking) {
  const std::vector<std::string> patterns = {
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'ll)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'ll)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      R"([!-/:-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      R"(\p{N}{1,3}|[\x{4e00}-\x{9fa5}]+)",
      R"(a+b|a|(?:ab|a)(?=b)|b{2}|[^ab]{2,3}?)",
      R"((?:the|th|t)(?!e)|\s\s?)"};
  std::mt19937 random(7);
  for (const std::string& pattern : patterns) {
    const auto automaton = Regex::compile(pattern);
    const auto machine = Regex::compile(for_backtracking(pattern));
    ASSERT_TRUE(automaton.ok() && machine.ok()) << pattern;
    EXPECT_TRUE(automaton->is_automaton()) << pattern;
    ASSERT_FALSE(machine->is_automaton()) << pattern;
    for (int i = 0; i < 2000; ++i) {
      const std::string text = random_text(random);
      std::vector<Regex::Match> expected, found;
      const std::vector<Regex::Match> pieces = random_pieces(text, random);
      machine->split(text, pieces, expected);
      automaton->split(text, pieces, found);
      ASSERT_EQ(found, expected) << pattern << "\non: " << text;
      Regex::Iterator one_by_one(*automaton, text), others(*machine, text);
      for (Regex::Match a, b; others.next(b);) {
        ASSERT_TRUE(one_by_one.next(a));
        ASSERT_EQ(a, b);
      }
    }
  }
}

TEST(Regex, CutsAtRunsInTheSamePassAsOneAfterTheOther) {
  const std::string kDeepSeek =
      R"([!-/:-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::string kGpt2 =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  struct Steps {
    std::vector<std::string> runs;
    std::string last;
  };
  const std::vector<Steps> all = {
      {{R"(\p{N}{1,3})", R"([\x{4e00}-\x{9fa5}\x{3040}-\x{30ff}]+)"}, kDeepSeek},
      {{R"(\p{N})"}, kGpt2},
      {{R"(\p{N}+)"}, kGpt2},
      {{" +", "[a-m]{1,4}", "[n-z]"}, R"(\s*[\r\n]+|\s+(?!\S)|\s+|[^\s]+)"},
      {{R"([\r\n]+)", "'"}, kDeepSeek}};
  std::mt19937 random(11);
  for (const auto& [patterns, last] : all) {
    std::vector<Regex> steps;
    std::vector<Regex::Runs> runs;
    for (const std::string& pattern : patterns) {
      steps.push_back(*Regex::compile(pattern));
      ASSERT_TRUE(steps.back().runs()) << pattern;
      runs.push_back(*steps.back().runs());
    }
    steps.push_back(*Regex::compile(last));
    Regex at_once = *Regex::compile(last);
    ASSERT_TRUE(at_once.split_after(runs)) << last;
    for (int i = 0; i < 2000; ++i) {
      const std::string text = random_text(random);
      const std::vector<Regex::Match> pieces = random_pieces(text, random);
      std::vector<Regex::Match> expected = pieces, found;
      for (const Regex& step : steps) {
        std::vector<Regex::Match> finer;
        step.split(text, expected, finer);
        expected = std::move(finer);
      }
      at_once.split(text, pieces, found);
      ASSERT_EQ(found, expected) << last << "\non: " << text;
    }
  }
}

TEST(Regex, LeavesRunsWithCommonCharactersToStepsOfTheirOwn) {
  const auto digits = Regex::compile(R"(\p{N}{1,3})"), hex = Regex::compile("[0-9a-f]+");
  Regex words = *Regex::compile(R"(\S+|\s+)");
  EXPECT_FALSE(words.split_after({*digits->runs(), *hex->runs()}));
  EXPECT_FALSE(words.runs());
}

}  // namespace
}  // namespace lorry::tokenizer
