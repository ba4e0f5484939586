#include "cli/line_editor.h"

#include <gtest/gtest.h>

namespace lorry::cli {
namespace {

using Key = LineBuffer::Key;

/// Types all bytes; what the last one did.
Key type(LineBuffer& line, std::string_view bytes) {
  Key key = Key::kEdit;
  for (const char byte : bytes) key = line.feed(static_cast<unsigned char>(byte));
  return key;
}

std::string typed(std::string_view bytes) {
  LineBuffer line;
  EXPECT_EQ(type(line, bytes), Key::kEdit);
  return line.text();
}

TEST(LineBuffer, InsertsAndErasesAtTheCursor) {
  EXPECT_EQ(typed("acd\x1b[D\x1b[D"
                  "b"),
            "abcd");
  EXPECT_EQ(typed("abcx\x7f"), "abc");
  EXPECT_EQ(typed("abc\x1b[H\x1b[3~"), "bc");
  EXPECT_EQ(typed("bc\x01"
                  "a\x05"
                  "d"),
            "abcd");
  EXPECT_EQ(typed("one two \x17"), "one ");
  EXPECT_EQ(typed("one two\x01\x1b[C\x0b"), "o");
  EXPECT_EQ(typed("one two\x15"), "");
  EXPECT_EQ(typed("\x7f\x1b[D\x1b[C\x1b[3~\x1b[A\x1b[B"), "");
}

TEST(LineBuffer, StepsOverWholeCharacters) {
  EXPECT_EQ(typed("ä中\x7f"), "ä");
  EXPECT_EQ(typed("ä中\x1b[D\x1b[Dx"), "xä中");
  EXPECT_EQ(typed("ä中\x1b[D\x1b[3~"), "ä");
}

TEST(LineBuffer, IgnoresKeysThatItDoesNotKnow) { EXPECT_EQ(typed("a\x1b[15~\x1b[1;5Pb"), "ab"); }

TEST(LineBuffer, TellsTheKeysThatEndALine) {
  LineBuffer line;
  EXPECT_EQ(type(line, "hi\r"), Key::kEnter);
  EXPECT_EQ(line.text(), "hi");
  EXPECT_EQ(type(line, "\x03"), Key::kEdit) << "Ctrl-C first clears the line";
  EXPECT_EQ(line.text(), "");
  EXPECT_EQ(type(line, "\x03"), Key::kInterrupt);
  EXPECT_EQ(type(line, "\x04"), Key::kEnd);
  EXPECT_EQ(type(line, "ab\x01\x04"), Key::kEdit) << "Ctrl-D erases in a line";
  EXPECT_EQ(line.text(), "b");
}

TEST(LineBuffer, RecallsEarlierLinesAndTheOneThatWasBegun) {
  LineBuffer line({"first", "second"});
  type(line, "new\x1b[A");
  EXPECT_EQ(line.text(), "second");
  type(line, "\x1b[A\x1b[A");
  EXPECT_EQ(line.text(), "first");
  type(line, "\x1b[B\x1b[B\x1b[B");
  EXPECT_EQ(line.text(), "new");
}

TEST(LineBuffer, ShowsThePartAroundTheCursor) {
  LineBuffer line;
  type(line, "0123456789");
  EXPECT_EQ(line.view(20).text, "0123456789");
  EXPECT_EQ(line.view(20).column, 10U);
  EXPECT_EQ(line.view(4).text, "6789");
  type(line, "\x01");
  EXPECT_EQ(line.view(4).text, "0123");
  EXPECT_EQ(line.view(4).column, 0U);
  LineBuffer wide;
  type(wide, "中文a");
  EXPECT_EQ(wide.view(20).column, 5U);
  EXPECT_EQ(wide.view(4).text, "文a");
}

}  // namespace
}  // namespace lorry::cli
