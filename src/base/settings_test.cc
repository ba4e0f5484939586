#include "base/settings.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace lorry {
namespace {

std::vector<DotenvLine> parse(std::string_view text) {
  auto lines = parse_dotenv(text, ".env");
  EXPECT_TRUE(lines.ok()) << (lines.ok() ? "" : lines.error().message);
  return lines.ok() ? *lines : std::vector<DotenvLine>{};
}

std::string problem(std::string_view text) {
  auto lines = parse_dotenv(text, ".env");
  return lines.ok() ? "" : lines.error().message;
}

TEST(Dotenv, ReadsNamesValuesCommentsAndExports) {
  const auto lines = parse("\xEF\xBB\xBF# keys\r\nA=1\r\n\n export B = two words  # why\nC=\n");
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0].name, "A");
  EXPECT_EQ(lines[0].value, "1");
  EXPECT_EQ(lines[1].name, "B");
  EXPECT_EQ(lines[1].value, "two words");
  EXPECT_EQ(lines[1].line, 4);
  EXPECT_EQ(lines[2].value, "");
}

TEST(Dotenv, QuotesKeepSpacesAndHashes) {
  const auto lines = parse("A=' # $B \\n'\nB=\"x\\ty\\\"\\\\ \\d\" # c\nC=a#b\nD=$A\n");
  EXPECT_EQ(lines[0].value, " # $B \\n");
  EXPECT_EQ(lines[1].value, "x\ty\"\\ \\d");
  EXPECT_EQ(lines[2].value, "a#b");
  EXPECT_EQ(lines[3].value, "$A") << "nothing is interpolated";
}

TEST(Dotenv, AMalformedLineIsNamedByItsNumberAndNotShown) {
  EXPECT_EQ(problem("A=1\nsecret\n"), ".env line 2: expected NAME=value");
  EXPECT_EQ(problem("1A=x"), ".env line 1: expected NAME=value");
  EXPECT_EQ(problem("A='secret"), ".env line 1: A: a quoted value must end on its line");
  EXPECT_EQ(problem("A='x' y"), ".env line 1: A: there is text behind the closing quote");
}

TEST(Settings, TheEnvironmentGoesBeforeDotenvAndEmptyCountsAsUnset) {
  const auto directory = std::filesystem::temp_directory_path() / "lorry_settings_test";
  std::filesystem::create_directories(directory);
  std::ofstream(directory / ".env") << "LORRY_TEST_A=file\n\nLORRY_TEST_B=file\nLORRY_TEST_C=\n";
  setenv("LORRY_TEST_A", "process", 1);
  setenv("LORRY_TEST_B", "", 1);
  const auto settings = Settings::load(directory.string());
  std::filesystem::remove_all(directory);
  ASSERT_TRUE(settings.ok()) << settings.error().message;
  EXPECT_EQ(settings->get("LORRY_TEST_A")->value, "process");
  EXPECT_EQ(settings->get("LORRY_TEST_A")->origin, "the environment");
  EXPECT_EQ(settings->get("LORRY_TEST_B")->value, "file");
  EXPECT_EQ(settings->get("LORRY_TEST_B")->origin, ".env line 3");
  EXPECT_FALSE(settings->get("LORRY_TEST_C").has_value());
  EXPECT_FALSE(settings->get("LORRY_TEST_D").has_value());
  settings->export_dotenv();
  EXPECT_STREQ(getenv("LORRY_TEST_A"), "process");
  EXPECT_STREQ(getenv("LORRY_TEST_B"), "file");
  EXPECT_EQ(getenv("LORRY_TEST_C"), nullptr);
}

TEST(Settings, NoDotenvIsFine) { EXPECT_TRUE(Settings::load("/nonexistent").ok()); }

}  // namespace
}  // namespace lorry
