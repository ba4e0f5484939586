#include "generate/stop_matcher.h"

#include <gtest/gtest.h>

namespace lorry::generate {
namespace {

TEST(StopMatcher, WithoutStopStringsEverythingPassesAtOnce) {
  StopMatcher matcher({""});
  EXPECT_EQ(matcher.push("abc"), "abc");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, AStringSplitOverPiecesIsFoundAndNotEmitted) {
  StopMatcher matcher({"</answer>"});
  EXPECT_EQ(matcher.push("42</an"), "42");
  EXPECT_EQ(matcher.push("swer> more"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.push("more"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, TheStringThatWasFoundIsEmittedWhereThatIsAskedFor) {
  StopMatcher matcher({"stop", "nd"}, /*include=*/true);
  EXPECT_EQ(matcher.push("the e"), "the e");
  EXPECT_EQ(matcher.push("nd, stop"), "nd");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, HeldTextComesOutWhenItTurnsOutToBeSomethingElse) {
  StopMatcher matcher({"###"});
  EXPECT_EQ(matcher.push("a##"), "a");
  EXPECT_EQ(matcher.push("b"), "##b");
  EXPECT_EQ(matcher.push("#"), "");
  EXPECT_EQ(matcher.finish(), "#");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, ARepeatedBeginningKeepsTheLongestCandidate) {
  StopMatcher matcher({"aab"});
  EXPECT_EQ(matcher.push("aaa"), "a");
  EXPECT_EQ(matcher.push("b"), "");
  EXPECT_TRUE(matcher.stopped());
}

TEST(StopMatcher, TheEarliestOfSeveralWins) {
  StopMatcher matcher({"two", "one"});
  EXPECT_EQ(matcher.push("x one two"), "x ");
  EXPECT_TRUE(matcher.stopped());
}

}  // namespace
}  // namespace lorry::generate
