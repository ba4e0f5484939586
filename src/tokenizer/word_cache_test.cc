#include "tokenizer/word_cache.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tokenizer/token_map.h"

namespace lorry::tokenizer {
namespace {

using Ids = std::vector<int32_t>;

struct Words {
  WordCache cache;
  std::map<std::string, Ids> inserted;

  static bool is_short(const std::string& word) { return word.size() <= WordCache::kShort; }
  static WordCache::Key key(const std::string& word) {
    return WordCache::key_of(word.data(), word.size(), word.size());
  }
  static uint64_t hash(const std::string& word) {
    return is_short(word) ? WordCache::hash(key(word)) : hash_bytes(word.data(), word.size());
  }

  void insert(const std::string& word, const Ids& ids) {
    inserted[word] = ids;
    if (is_short(word)) {
      cache.insert(key(word), hash(word), ids);
    } else {
      cache.insert_long(word, hash(word), ids);
    }
  }
  /// Empty if it is not known.
  Ids find(const std::string& word) const {
    const auto known =
        is_short(word) ? cache.find(key(word), hash(word)) : cache.find_long(word, hash(word));
    return known.ids ? Ids(known.ids, known.ids + known.n) : Ids();
  }
};

TEST(WordCache, KnowsAWordWithTheIdsItCameWith) {
  Words words;
  for (const std::string& word :
       {std::string("a"), std::string("\0", 1), std::string("a\0", 2), std::string(15, 'x'),
        std::string(16, 'x'), std::string(WordCache::kMaxWord, 'y')}) {
    EXPECT_EQ(words.find(word), Ids());
    words.insert(word, {7, static_cast<int32_t>(word.size())});
    EXPECT_EQ(words.find(word), (Ids{7, static_cast<int32_t>(word.size())}));
  }
  EXPECT_EQ(words.find("a"), (Ids{7, 1}));
}

/// As always in one vocabulary, a word has the same ids each time.
Ids ids_of(const std::string& word) {
  std::mt19937 random(static_cast<uint32_t>(std::hash<std::string>()(word)));
  Ids ids(1 + random() % WordCache::kMaxIds);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % ((1 << 24) - 1));
  return ids;
}

TEST(WordCache, ForgetsWordsButNeverMixesThem) {
  Words words;
  std::mt19937 random(3);
  size_t found = 0, asked = 0;
  for (int i = 0; i < 400'000; ++i) {
    const size_t size = 1 + random() % (i % 8 == 0 ? 40 : 4);
    std::string word;
    for (size_t k = 0; k < size; ++k) word += static_cast<char>("abcdefgh\0\xFF"[random() % 10]);
    if (random() % 2 == 0) {
      words.insert(word, ids_of(word));
    } else if (const auto want = words.inserted.find(word); want != words.inserted.end()) {
      const Ids ids = words.find(word);
      ++asked;
      if (ids.empty()) continue;
      ++found;
      ASSERT_EQ(ids, want->second) << word;
    }
  }
  EXPECT_GT(found, asked / 2);
}

}  // namespace
}  // namespace lorry::tokenizer
