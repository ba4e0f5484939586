#include "cli/visible.h"

#include <gtest/gtest.h>

namespace lorry::cli {
namespace {

TEST(Visible, ControlCharactersAreEscaped) {
  EXPECT_EQ(visible("a\x1b]0;title\x07\n\tb\r"), "a\\x1b]0;title\\x07\\n\\tb\\r");
  EXPECT_EQ(visible("\xC2\x9B"
                    "31m\x7F"),
            "\\x9b31m\\x7f");
  EXPECT_EQ(visible(std::string_view("\0x", 2)), "\\x00x");
}

TEST(Visible, LinesCanBeKept) { EXPECT_EQ(visible("a\n\tb\r\n", true), "a\n\tb\\r\n"); }

TEST(Visible, WhatTurnsOrHidesTextIsEscaped) {
  EXPECT_EQ(visible("a\u202Eb\u2066\uFEFF\u200B"), "a\\u202eb\\u2066\\ufeff\\u200b");
  EXPECT_EQ(visible("\U000E0041"), "\\U000e0041");
}

TEST(Visible, WholeCharactersStayAndBrokenBytesAreNamed) {
  EXPECT_EQ(visible("h\xC3\xA9 \xE4\xB8\x96 \xF0\x9F\x8E\x89"),
            "h\xC3\xA9 \xE4\xB8\x96 \xF0\x9F\x8E\x89");
  EXPECT_EQ(visible("\xE4\xB8"), "<0xE4><0xB8>");
  EXPECT_EQ(visible("\x96z\xFF"), "<0x96>z<0xFF>");
}

TEST(NamedBytes, LeaveEverythingElse) {
  EXPECT_EQ(with_named_bytes("\x1b\n\xE4z"), "\x1b\n<0xE4>z");
}

}  // namespace
}  // namespace lorry::cli
