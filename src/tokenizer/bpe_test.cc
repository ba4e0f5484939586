#include "tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "tokenizer/byte_chars.h"
#include "tokenizer/unicode.h"

namespace lorry::tokenizer {
namespace {

struct Parts {
  TokenMap vocab;
  std::vector<std::pair<std::string, std::string>> merges;
};

/// All bytes, and merges of random tokens that are there; `in_order`: each makes the next id.
Parts random_parts(std::mt19937& random, bool in_order) {
  Parts parts;
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    std::string token;
    append_utf8(token, byte_to_char(static_cast<uint8_t>(byte)));
    parts.vocab.insert(token, byte);
    if (byte >= 'a' && byte <= 'e') tokens.push_back(token);
  }
  std::vector<int32_t> ids;
  for (int32_t id = 256; id < 456; ++id) ids.push_back(id);
  if (!in_order) std::shuffle(ids.begin(), ids.end(), random);
  for (size_t next = 0; next < ids.size();) {
    const std::string left = tokens[random() % tokens.size()];
    const std::string right = tokens[random() % tokens.size()];
    if (parts.vocab.find(left + right) || left.size() + right.size() > 12) continue;
    parts.vocab.insert(left + right, ids[next++]);
    parts.merges.emplace_back(left, right);
    tokens.push_back(left + right);
  }
  return parts;
}

class ManyWords : public testing::TestWithParam<std::tuple<bool, bool>> {};

TEST_P(ManyWords, BecomeWhatEachBecomesAlone) {
  const auto [in_order, ignore_merges] = GetParam();
  std::mt19937 random(5);
  for (int round = 0; round < 5; ++round) {
    Parts parts = random_parts(random, in_order);
    const std::vector<Bpe::Merge> merges(parts.merges.begin(), parts.merges.end());
    const auto bpe = Bpe::create(std::move(parts.vocab), merges,
                                 BpeOptions{.ignore_merges = ignore_merges}, true);
    ASSERT_TRUE(bpe.ok()) << bpe.error().message;
    const WordModel& model = **bpe;
    std::string text;
    std::vector<Regex::Match> words;
    for (int i = 0; i < 2000; ++i) {
      const size_t longest = std::array{3, 8, 20, 70, 300}[random() % 5], begin = text.size();
      for (size_t n = 1 + random() % longest; n > 0; --n)
        text += static_cast<char>('a' + random() % (i % 10 == 0 ? 20 : 5));
      words.push_back({begin, text.size()});
    }
    std::vector<int32_t> want;
    std::vector<uint32_t> sizes;
    for (const auto& [begin, end] : words) {
      std::vector<Symbol> symbols;
      model.encode(std::string_view(text).substr(begin, end - begin), symbols);
      for (const Symbol& s : symbols) {
        want.push_back(s.id);
        sizes.push_back(s.size);
      }
    }
    for (int pass = 0; pass < 2; ++pass) {  // the second finds words in the cache
      std::vector<int32_t> ids;
      model.encode(text, words, ids);
      ASSERT_EQ(ids, want);
    }
    for (size_t i = 0; i < want.size(); ++i)
      ASSERT_EQ(model.token_sizes()[static_cast<size_t>(want[i])], sizes[i]);
  }
}

TEST(Bpe, TellsNoSizesWhereTokensOfSeveralShareAnId) {
  std::mt19937 random(5);
  Parts parts = random_parts(random, true);
  parts.vocab.insert("zzz", 300);
  const std::vector<Bpe::Merge> merges(parts.merges.begin(), parts.merges.end());
  const auto bpe = Bpe::create(std::move(parts.vocab), merges, {}, true);
  ASSERT_TRUE(bpe.ok()) << bpe.error().message;
  EXPECT_EQ((*bpe)->token_sizes().empty(), true);
}

INSTANTIATE_TEST_SUITE_P(Bpe, ManyWords, testing::Combine(testing::Bool(), testing::Bool()));

}  // namespace
}  // namespace lorry::tokenizer
