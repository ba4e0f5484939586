// Byte-pair encoding of one word.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "text/word_model.h"

namespace lorry::text {

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

  void encode(std::string_view word, std::vector<int32_t>& ids) const override;
  void encode(std::string_view word, std::vector<Symbol>& symbols) const override;

 private:
  struct MergeSlot {
    uint64_t pair = UINT64_MAX;
    uint32_t rank = 0;
    int32_t id = 0;
  };

  explicit Bpe(TokenMap vocab) : WordModel(std::move(vocab)) {}
  Result<> add_merges(const std::vector<Merge>& merges);
  Result<> prepare_bytes();
  void insert_merge(uint64_t pair, uint32_t rank, int32_t id);
  const MergeSlot* find_merge(int32_t left, int32_t right) const;
  void split_bytes(std::string_view word, std::vector<Symbol>& symbols) const;
  void split_chars(std::string_view word, std::vector<Symbol>& symbols) const;
  void add_unknown(uint32_t size, bool& pending, std::vector<Symbol>& symbols) const;
  bool add_fallback(std::string_view piece, std::vector<Symbol>& symbols) const;
  void merge(std::vector<Symbol>& symbols) const;
  void merge_short(std::vector<Symbol>& symbols) const;
  void merge_long(std::vector<Symbol>& symbols) const;

  TokenMap words_;  // whole words as they come in, for ignore_merges
  BpeOptions options_;
  bool byte_level_ = false;
  bool has_unk_ = false;
  int32_t unk_id_ = 0;
  std::array<int32_t, 256> byte_ids_{};
  std::array<int32_t, 256> fallback_ids_{};
  bool has_fallback_ = false;
  std::vector<MergeSlot> merges_;
  uint64_t merge_mask_ = 0;
};

}  // namespace lorry::text
