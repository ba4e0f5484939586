// The inside of a Tokenizer: shared by loading and by encoding. Private to tokenizer*.cc.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/decoder.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/post_processor.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/word_model.h"

namespace lorry::tokenizer {

/// Strings by id, with gaps, in one arena.
class IdTable {
 public:
  void resize(size_t n) { spans_.resize(n); }
  size_t size() const { return spans_.size(); }
  void set(int32_t id, std::string_view text) {
    spans_[static_cast<size_t>(id)] = {arena_.size(), static_cast<uint32_t>(text.size()), true};
    arena_ += text;
  }
  bool has(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < spans_.size() && spans_[id].present;
  }
  std::string_view get(int32_t id) const {
    const Span& s = spans_[static_cast<size_t>(id)];
    return std::string_view(arena_).substr(s.begin, s.size);
  }

 private:
  struct Span {
    size_t begin = 0;
    uint32_t size = 0;
    bool present = false;
  };
  std::string arena_;
  std::vector<Span> spans_;
};

struct Tokenizer::Impl {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  PostProcessor post_processor;
  Decoder decoder;
  AddedTokens added;
  std::unique_ptr<WordModel> model;
  IdTable tokens;             ///< what decoding takes an id for
  IdTable bytes;              ///< its bytes, for a byte-level decoder
  std::vector<bool> skipped;  ///< by skip_special_tokens
  Json special_tokens_map;
  std::string digest;

  static Result<std::unique_ptr<Impl>> load(const TokenizerFiles& files);
  /// Appends the ids of the special tokens with these names.
  Result<> wrap(const std::vector<std::string>& names, const Json& contents,
                std::vector<int32_t>& ids) const;
  /// `tokens`, `bytes` and `skipped`, from vocabulary and added tokens.
  void fill_tables();

  /// Appends the ids of `text`, and where they lie if `spans` is not null.
  void encode(std::string_view text, std::vector<int32_t>& ids, std::vector<Span>* spans) const;
  void encode_section(AlignedText text, std::vector<int32_t>& ids, std::vector<Span>* spans) const;
  void encode_words(AlignedText text, std::vector<int32_t>& ids, std::vector<Span>* spans) const;
};

}  // namespace lorry::tokenizer
