// The `pre_tokenizer` of tokenizer.json: how text is cut into words before byte-pair encoding.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "tokenizer/aligned_text.h"
#include "tokenizer/regex.h"

namespace lorry::tokenizer {

/// A word: bytes [begin, end) of the text.
using Piece = Regex::Match;

/// One cut. Immutable, hence thread-safe.
class PreTokenizerStep {
 public:
  virtual ~PreTokenizerStep() = default;
  /// Cuts each of `in` into `out` (no empty pieces). A step that changes the text replaces `text`,
  /// and the pieces are then of the new one.
  virtual void apply(AlignedText& text, const std::vector<Piece>& in, std::vector<Piece>& out,
                     bool keep_spans) const = 0;
};

class PreTokenizer {
 public:
  /// From the JSON value (null for none). A type that is not supported is named in the error.
  /// `takes_bytes`: the model can read words as bytes.
  static Result<PreTokenizer> parse(const Json& json, bool takes_bytes);

  /// Whether the words are to be read as bytes: ByteLevel comes last, and its mapping of bytes to
  /// characters is left to the vocabulary.
  bool byte_level() const { return byte_level_; }

  /// Whether split() asks where in the input its text begins, also when the caller does not.
  bool needs_spans() const { return needs_spans_; }

  /// Cuts `text` into words.
  void split(AlignedText& text, std::vector<Piece>& pieces, bool keep_spans) const;

 private:
  Result<> add(const Json& json, bool last);
  Result<> add_byte_level(const Json& json, bool last);
  void add_isolated(Regex pattern);
  std::vector<std::unique_ptr<const PreTokenizerStep>> steps_;
  std::vector<Regex::Runs> runs_;  ///< of the last steps, if these cut at such
  bool byte_level_ = false;
  bool needs_spans_ = false;
};

}  // namespace lorry::tokenizer
