#include "tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tokenizer/byte_chars.h"

namespace lorry::tokenizer {
namespace {

using Ids = std::vector<int32_t>;

/// Byte-level vocabulary: ids 0 to 255 are the bytes, 256 "he", 257 "ll", 258 "hell", 259 "Ġhe".
Json small_tokenizer() {
  Json vocab = Json::object();
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    vocab[bytes_to_chars({&byte, 1})] = b;
  }
  int next = 256;
  for (const char* token : {"he", "ll", "hell", "Ġhe"}) vocab[token] = next++;
  const auto added = [](int id, const char* content) {
    return Json{{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  };
  return {
      {"added_tokens", Json::array({added(260, "<s>"), added(261, "<e>")})},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"h e", "l l", "he ll", "Ġ he"}}}}};
}

std::shared_ptr<const Tokenizer> load(const Json& json, const Json& config = Json::object()) {
  auto tokenizer = Tokenizer::load(dump_json(json), dump_json(config));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  return tokenizer.ok() ? *tokenizer : nullptr;
}

std::string load_error(const Json& json) {
  auto tokenizer = Tokenizer::load(dump_json(json), "");
  EXPECT_FALSE(tokenizer.ok());
  return tokenizer.ok() ? "" : tokenizer.error().message;
}

TEST(Tokenizer, MergesByRankFromTheLeft) {
  EXPECT_EQ(load(small_tokenizer())->encode("hello he", false), (Ids{258, 'o', 259}));
}

TEST(Tokenizer, FindsSpecialTokensInTheTextEitherWay) {
  const auto tokenizer = load(small_tokenizer());
  EXPECT_EQ(tokenizer->encode("<s>he<e>", false), (Ids{260, 256, 261}));
  EXPECT_EQ(tokenizer->encode("<s>he<e>", true), (Ids{260, 256, 261}));
  EXPECT_TRUE(tokenizer->is_special(260));
  EXPECT_FALSE(tokenizer->is_special(256));
}

TEST(Tokenizer, PutsTheTemplatesTokensAroundTheText) {
  Json json = small_tokenizer();
  json["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", Json::array({{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
                              {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}})},
      {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {260}}, {"tokens", {"<s>"}}}}}}};
  const auto tokenizer = load(json);
  EXPECT_EQ(tokenizer->encode("he", true), (Ids{260, 256}));
  EXPECT_EQ(tokenizer->encode("he", false), (Ids{256}));
  EXPECT_EQ(tokenizer->encode("", true), (Ids{260}));
  const Encoding e = tokenizer->encode_with_offsets("he", true);
  EXPECT_EQ(e.offsets[0], (std::pair<uint32_t, uint32_t>{0, 0}));
  EXPECT_EQ(e.offsets[1], (std::pair<uint32_t, uint32_t>{0, 2}));
}

TEST(Tokenizer, GivesOffsetsInTheOriginalTextWhenANormalizerChangedIt) {
  Json json = small_tokenizer();
  json["normalizer"] = {{"type", "NFC"}};
  const std::string text = "e\xCC\x81he";  // e and a combining acute accent: one character in NFC
  const Encoding e = load(json)->encode_with_offsets(text, false);
  ASSERT_EQ(e.ids, (Ids{0xC3, 0xA9, 256}));
  EXPECT_EQ(e.offsets[0], (std::pair<uint32_t, uint32_t>{0, 3}));
  EXPECT_EQ(e.offsets[2], (std::pair<uint32_t, uint32_t>{3, 5}));
}

TEST(Tokenizer, ReadsBrokenBytesAsReplacementCharacters) {
  const Encoding e = load(small_tokenizer())->encode_with_offsets("\xFFhe", false);
  EXPECT_EQ(e.ids, (Ids{0xEF, 0xBF, 0xBD, 256}));
  EXPECT_EQ(e.offsets[3], (std::pair<uint32_t, uint32_t>{1, 3}));
}

TEST(Tokenizer, DecodesAndSkipsSpecialTokens) {
  const auto tokenizer = load(small_tokenizer());
  EXPECT_EQ(tokenizer->decode(Ids{260, 258, 'o', 0xC3, 5000}, false), "<s>hello\uFFFD");
  EXPECT_EQ(tokenizer->decode(Ids{260, 258, 'o'}, true), "hello");
}

TEST(Tokenizer, StripsWhiteSpaceBesideTokensThatAskForIt) {
  Json json = small_tokenizer();
  json["added_tokens"][0]["lstrip"] = true;
  json["added_tokens"][1]["single_word"] = true;
  const auto tokenizer = load(json);
  const Encoding e = tokenizer->encode_with_offsets("he \n <s>", false);
  EXPECT_EQ(e.ids, (Ids{256, 260}));
  EXPECT_EQ(e.offsets[1], (std::pair<uint32_t, uint32_t>{2, 8}));
  EXPECT_EQ(tokenizer->encode("he<e>", false), (Ids{256, '<', 'e', '>'}));
}

TEST(Tokenizer, AddsWhatTheConfigurationNames) {
  const Json config = {{"eos_token", "<end>"},
                       {"bos_token", {{"__type", "AddedToken"}, {"content", "<s>"}}},
                       {"additional_special_tokens", {"<extra>"}},
                       {"pad_token", nullptr}};
  const auto tokenizer = load(small_tokenizer(), config);
  EXPECT_EQ(tokenizer->eos_id(), 262);
  EXPECT_EQ(tokenizer->bos_id(), 260);
  EXPECT_EQ(tokenizer->encode("<extra><end>", false), (Ids{263, 262}));
  EXPECT_EQ(tokenizer->vocab_size(), 264);
  EXPECT_EQ(dump_json(tokenizer->special_tokens_map()),
            R"({"bos_token":"<s>","eos_token":"<end>"})");
}

TEST(Tokenizer, DigestsWhatDecidesIds) {
  const auto plain = load(small_tokenizer());
  EXPECT_EQ(plain->digest(), load(small_tokenizer(), {{"model_max_length", 7}})->digest());
  EXPECT_NE(plain->digest(), load(small_tokenizer(), {{"eos_token", "<end>"}})->digest());
  Json other = small_tokenizer();
  other["model"]["merges"].erase(3);
  EXPECT_NE(plain->digest(), load(other)->digest());
}

TEST(Tokenizer, EncodesAMegabyteOfOneLetter) {
  const std::string text(1 << 20, 'l');
  const Ids ids = load(small_tokenizer())->encode(text, false);
  ASSERT_EQ(ids.size(), text.size() / 2);
  EXPECT_EQ(ids.front(), 257);
  EXPECT_EQ(ids.back(), 257);
}

TEST(Tokenizer, NamesWhatItDoesNotSupport) {
  for (const char* part : {"model", "normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    Json json = small_tokenizer();
    json[part] = {{"type", "Unheard"}};
    EXPECT_NE(load_error(json).find("'Unheard'"), std::string::npos) << part;
  }
  Json json = small_tokenizer();
  json["model"]["dropout"] = 0.1;
  EXPECT_NE(load_error(json).find("dropout"), std::string::npos);
  json = small_tokenizer();
  json["model"] = {{"type", "Unigram"}, {"vocab", Json::array()}, {"unk_id", nullptr}};
  EXPECT_NE(load_error(json).find("unk_id"), std::string::npos);
}

TEST(Tokenizer, SpellsALackingByteWithTwoFallbackTokens) {
  // A space is U+0120 to a byte-level vocabulary: two bytes, for each a token.
  Json json = small_tokenizer();
  json["pre_tokenizer"]["use_regex"] = false;
  Json& model = json["model"];
  model["vocab"] = {{"a", 0}, {"<0xC4>", 1}, {"<0xA0>", 2}};
  model["merges"] = Json::array();
  model["byte_fallback"] = true;
  const auto tokenizer = load(json);
  for (const size_t n : {1, 10, 40, 200, 5000}) {
    Ids want;
    for (size_t i = 0; i < n; ++i) want.insert(want.end(), {1, 2});
    EXPECT_EQ(tokenizer->encode(std::string(n, ' '), false), want);
    EXPECT_EQ(tokenizer->encode_with_offsets(std::string(n, ' '), false).ids, want);
  }
}

TEST(Tokenizer, RefusesADamagedCharsmap) {
  for (const char* map : {"", "!", "AAAA", "BAAAAA==", "CAAAAP////8="}) {
    Json json = small_tokenizer();
    json["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", map}};
    EXPECT_NE(load_error(json).find("damaged"), std::string::npos) << map;
  }
}

TEST(Tokenizer, RefusesAMetaspaceWithoutReplacement) {
  Json json = small_tokenizer();
  json["decoder"] = {{"type", "Metaspace"}, {"replacement", ""}};
  EXPECT_NE(load_error(json).find("empty replacement"), std::string::npos);
}

TEST(Tokenizer, RefusesBrokenFiles) {
  EXPECT_FALSE(Tokenizer::load("", "").ok());
  EXPECT_FALSE(Tokenizer::load("{\"model\": {", "").ok());
  EXPECT_FALSE(Tokenizer::load("{\"model\": 7}", "").ok());
  EXPECT_FALSE(Tokenizer::load(dump_json(small_tokenizer()), "{").ok());
  Json json = small_tokenizer();
  json["model"]["merges"].push_back("no such");
  EXPECT_NE(load_error(json).find("merge 4"), std::string::npos);
  json = small_tokenizer();
  json["model"]["vocab"]["x"] = -1;
  EXPECT_FALSE(load_error(json).empty());
}

TEST(StreamDecoder, NeverGivesHalfACharacter) {
  const auto tokenizer = load(small_tokenizer());
  StreamDecoder stream(tokenizer, true);
  EXPECT_EQ(stream.push(256), "he");
  EXPECT_EQ(stream.push(0xE4), "");
  EXPECT_EQ(stream.push(260), "");
  EXPECT_EQ(stream.push(0xB8), "");
  EXPECT_EQ(stream.push(0x96), "世");
  EXPECT_EQ(stream.push(0xE4), "");
  EXPECT_EQ(stream.push('!'), "\uFFFD!");
  EXPECT_EQ(stream.push(0xC3), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
}

}  // namespace
}  // namespace lorry::tokenizer
