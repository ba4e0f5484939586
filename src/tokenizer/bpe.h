// Byte-pair encoding of one word.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/merge_lanes.h"
#include "tokenizer/merge_table.h"
#include "tokenizer/word_model.h"

namespace lorry::tokenizer {

struct BpeOptions {
  std::string unk_token;  ///< "" if there is none
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;
  std::string subword_prefix;  ///< of every character of a word but the first
  std::string word_suffix;     ///< of a word's last character
};

/// Vocabulary and merges.
class Bpe final : public WordModel {
 public:
  using Merge = std::pair<std::string_view, std::string_view>;

  /// `byte_level`: words come as raw bytes and the vocabulary spells them with byte characters;
  /// otherwise words come as the vocabulary spells them.
  static Result<std::unique_ptr<Bpe>> create(TokenMap vocab, const std::vector<Merge>& merges,
                                             BpeOptions options, bool byte_level);

  using WordModel::encode;
  void encode(std::string_view word, std::vector<Symbol>& symbols) const override;
  void cut(std::string_view text, std::vector<Regex::Match>& words) const override;
  void encode_new(std::span<NewWord> words) const override;

 private:
  static constexpr size_t kLanes = 8;              // words that are merged at once
  static constexpr size_t kScanLimit = 48;         // symbols; longer words go through a heap
  using Ranks = std::array<uint32_t, kScanLimit>;  // of merging a symbol with the next

  explicit Bpe(TokenMap vocab) : WordModel(std::move(vocab)) {}
  Result<> add_merges(const std::vector<Merge>& merges);
  Result<> add_merges(std::span<const Merge> merges, size_t first);
  Result<> prepare_bytes();
  void measure_tokens();
  void start_lane(std::string_view word, MergeLane& lane) const;
  void take_whole(std::span<NewWord> words) const;
  void merge(std::span<MergeLane> lanes) const;
  bool split_bytes(std::string_view word, std::vector<Symbol>& symbols) const;
  void split_chars(std::string_view word, std::vector<Symbol>& symbols) const;
  void add_unknown(uint32_t size, bool& pending, std::vector<Symbol>& symbols) const;
  bool add_fallback(std::string_view piece, std::vector<Symbol>& symbols) const;
  void merge_short(std::vector<Symbol>& symbols, Ranks& ranks) const;
  void merge_long(std::vector<Symbol>& symbols) const;

  TokenMap words_;  // whole words as they come in, for ignore_merges
  BpeOptions options_;
  bool byte_level_ = false;
  bool plain_bytes_ = false;  // words begin as their bytes, each of which is a token
  bool cuts_ = false;         // no token goes on from something else to a kSpace
  bool has_unk_ = false;
  int32_t unk_id_ = 0;
  std::array<int32_t, 256> byte_ids_{};
  std::vector<uint32_t> byte_ranks_;  // of merging two bytes, by left << 8 | right
  std::array<int32_t, 256> fallback_ids_{};
  bool has_fallback_ = false;
  MergeTable merges_;
};

}  // namespace lorry::tokenizer
