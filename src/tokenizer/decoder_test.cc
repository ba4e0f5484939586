#include "tokenizer/decoder.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tokenizer/unicode.h"

namespace lorry::tokenizer {
namespace {

using Strings = std::vector<std::string>;

Decoder parse(const Json& json) {
  auto decoder = Decoder::parse(json);
  EXPECT_TRUE(decoder.ok()) << decoder.error().message;
  return std::move(*decoder);
}

Json sequence(std::vector<Json> steps) {
  return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

const Json kFuse = {{"type", "Fuse"}};
const Json kByteFallback = {{"type", "ByteFallback"}};

Json replace(const char* kind, const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{kind, from}}}, {"content", to}};
}

Json strip(const char* content, size_t start, size_t stop) {
  return {{"type", "Strip"}, {"content", content}, {"start", start}, {"stop", stop}};
}

/// What each token makes certain, and last what the end does.
Strings stream(const Json& json, const Strings& tokens) {
  const Decoder decoder = parse(json);
  DecoderRun run(decoder);
  Strings out;
  for (const std::string& token : tokens) run.push(token, out.emplace_back());
  run.finish(out.emplace_back());
  std::string all;
  for (const std::string& part : out) {
    EXPECT_TRUE(is_valid_utf8(part)) << part;
    all += part;
  }
  EXPECT_EQ(all, decoder.decode(tokens));
  return out;
}

TEST(Decoder, HoldsBackBytesUntilTheirRunEnds) {
  const Json json = sequence({kByteFallback, kFuse});
  EXPECT_EQ(stream(json, {"a", "<0xC3>", "<0xA9>", "b"}), (Strings{"a", "", "", "éb", ""}));
  EXPECT_EQ(stream(json, {"<0xC3>", "<0xA9>", "<0xFF>"}),
            (Strings{"", "", "", "\uFFFD\uFFFD\uFFFD"}));
}

TEST(Decoder, HoldsBackAWordsEndUntilAnotherWordComes) {
  const Json json = {{"type", "BPEDecoder"}, {"suffix", "</w>"}};
  EXPECT_EQ(stream(json, {"he", "llo</w>", "you</w>"}), (Strings{"he", "", "llo ", "you"}));
}

TEST(Decoder, DropsRepeatedTokensOfCtc) {
  const Json json = {
      {"type", "CTC"}, {"pad_token", "<pad>"}, {"word_delimiter_token", "|"}, {"cleanup", true}};
  EXPECT_EQ(stream(json, {"h", "h", "<pad>", "h", "|", "i"}),
            (Strings{"h", "", "", "h", " ", "i", ""}));
}

TEST(Decoder, HoldsBackWhatMayBeginAReplacement) {
  const Json json = sequence({kFuse, replace("String", "ab\u00e9", "-")});
  EXPECT_EQ(stream(json, {"xa", "b", "é", "ab", "c"}), (Strings{"x", "", "-", "", "abc", ""}));
  EXPECT_EQ(stream(json, {"aab", "ab", "é"}), (Strings{"a", "ab", "-", ""}));
}

TEST(Decoder, KeepsTheWholeTextForAPatternOverAllOfIt) {
  const Json json = sequence({kFuse, replace("Regex", "b$", "!")});
  EXPECT_EQ(stream(json, {"ab", "ab"}), (Strings{"", "", "aba!"}));
}

TEST(Decoder, StripsBothEndsOfAStream) {
  const Json json = sequence({kFuse, strip(" ", 2, 2)});
  EXPECT_EQ(stream(json, {" ", "  a", " ", "b ", "  "}), (Strings{"", " a", "", " b", " ", ""}));
  EXPECT_EQ(stream(json, {"   ", " "}), (Strings{"", "", ""}));
}

TEST(Decoder, CleansEnglishUpBehindAFusedText) {
  const Json json = sequence({kFuse, {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}});
  EXPECT_EQ(stream(json, {"I do", " not", " know", " ."}).front(), "I");
  EXPECT_EQ(parse(json).decode({"I do", " not", " know", " ."}), "I don't know.");
}

TEST(Decoder, TakesAByteTokenForAByteIfTheTextIsNoMore) {
  const Json json = sequence({kFuse, kByteFallback});
  EXPECT_EQ(stream(json, {"<0x", "61>"}), (Strings{"", "", "a"}));
  EXPECT_EQ(stream(json, {"<0x", "61>", "b"}), (Strings{"", "", "<0x61>b", ""}));
}

TEST(Decoder, TellsTheBytesOfATokenThatIsPartOfACharacter) {
  const Decoder sentence_piece =
      parse(sequence({replace("String", "▁", " "), kByteFallback, kFuse, strip(" ", 1, 0)}));
  EXPECT_EQ(sentence_piece.bytes_of("<0xF0>", false), "\xF0");
  EXPECT_EQ(sentence_piece.bytes_of("▁the", false), " the");
  EXPECT_EQ(sentence_piece.bytes_of("▁the", true), "the");
  EXPECT_EQ(sentence_piece.bytes_of("é", false), "é");
  const Decoder then_stripped = parse(sequence({{{"type", "ByteLevel"}}, strip(" ", 1, 0)}));
  EXPECT_EQ(then_stripped.bytes_of("ð", false), "\xF0");
  EXPECT_EQ(then_stripped.bytes_of("Ġis", false), " is");
}

TEST(Decoder, DecodesALongStreamOnce) {
  const Json ctc = {
      {"type", "CTC"}, {"pad_token", "p"}, {"word_delimiter_token", "|"}, {"cleanup", false}};
  for (const Json& json :
       {ctc, sequence({kFuse, replace("Regex", "a", "b")}), sequence({kFuse, strip("a", 1, 1)}),
        Json({{"type", "BPEDecoder"}, {"suffix", "a"}})}) {
    const Decoder decoder = parse(json);
    DecoderRun run(decoder);
    std::string text;
    for (int i = 0; i < 300'000; ++i) run.push(i % 2 ? "a" : "ba", text);
    run.finish(text);
    EXPECT_GE(text.size(), 300'000u);
  }
}

}  // namespace
}  // namespace lorry::tokenizer
