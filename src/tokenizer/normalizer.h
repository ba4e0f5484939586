// The `normalizer` of tokenizer.json: what is changed in the text before it is split.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "tokenizer/aligned_text.h"

namespace lorry::tokenizer {

/// One change. Immutable, hence thread-safe.
class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  /// `text` changed, or as it came if there is nothing to change.
  virtual AlignedText apply(AlignedText text, bool keep_spans) const = 0;
};

/// A sequence of changes.
class Normalizer {
 public:
  /// From the JSON value (null for none). A type that is not supported is named in the error.
  static Result<Normalizer> parse(const Json& json);

  bool empty() const { return steps_.empty(); }
  AlignedText apply(AlignedText text, bool keep_spans) const;
  std::string apply(std::string_view text) const;

 private:
  Result<> add(const Json& json);
  Result<> add_bert(const Json& json, const std::string& where);
  std::vector<std::unique_ptr<const NormalizerStep>> steps_;
};

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

/// A Unicode normal form by the character tables of the peer.
std::unique_ptr<NormalizerStep> make_normal_form(NormalForm form);
std::unique_ptr<NormalizerStep> make_strip_accents();
/// What SentencePiece takes for control characters and spaces.
std::unique_ptr<NormalizerStep> make_nmt();
/// The parts of BertNormalizer.
std::unique_ptr<NormalizerStep> make_bert_clean_text();
std::unique_ptr<NormalizerStep> make_bert_chinese_chars();
std::unique_ptr<NormalizerStep> make_bert_strip_accents();
/// From SentencePiece's precompiled_charsmap; fails with invalid input if it is damaged.
Result<std::unique_ptr<NormalizerStep>> make_precompiled(std::string_view base64,
                                                         const std::string& where);

}  // namespace lorry::tokenizer
