// The `decoder` of tokenizer.json: token strings back into text.
//
// Every step is a stream that takes token after token and hands on what no later token can change.
// A text is decoded by pushing all of its tokens, so that token by token and at once give the same.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace lorry::tokenizer {

/// One change to the tokens of one text, on its way.
class DecoderStream {
 public:
  using Tokens = std::vector<std::string>;
  virtual ~DecoderStream() = default;
  /// Takes a token, or behind a step that joins all tokens the next part of the one that is left,
  /// and appends what is certain. Parts are whole characters.
  virtual void push(std::string token, Tokens& out) = 0;
  /// Appends what was held back.
  virtual void finish(Tokens&) {}
};

/// Begins a stream. Immutable, hence thread-safe.
using DecoderStep = std::function<std::unique_ptr<DecoderStream>()>;

class Decoder {
 public:
  /// From the JSON value (null: tokens are joined with spaces). What is not supported is named.
  static Result<Decoder> parse(const Json& json);

  /// Whether every token decodes to bytes of its own, so that a text is their concatenation.
  bool byte_level() const { return byte_level_; }
  /// The bytes of a token, for a byte-level decoder. They may be part of a character.
  static std::string token_bytes(std::string_view token);

  std::string decode(std::vector<std::string> tokens) const;
  /// What a token adds to a text, at its start or after other tokens, a token of one byte that
  /// byte.
  std::string bytes_of(std::string token, bool at_start) const;

 private:
  friend class DecoderRun;
  Result<> add(const Json& json);
  Result<> add_text_step(const std::string& type, const Json& json, const std::string& where);
  std::vector<DecoderStep> steps_;
  bool byte_level_ = false;
  bool fused_ = false;        // by a step so far
  bool byte_tokens_ = false;  // <0x61> is a byte
  bool byte_chars_ = false;   // characters are bytes, though other steps follow
  bool join_with_spaces_ = false;
};

/// The decoding of one text. Keeps a reference to the decoder. Not thread-safe.
class DecoderRun {
 public:
  explicit DecoderRun(const Decoder& decoder);
  /// Appends the text that became certain with this token.
  void push(std::string token, std::string& text);
  void finish(std::string& text);

 private:
  void pass(size_t step, std::string& text);

  const Decoder& decoder_;
  std::vector<std::unique_ptr<DecoderStream>> streams_;
  DecoderStream::Tokens tokens_, next_;
  bool first_ = true;
};

/// Takes off what no later byte can change, as text with broken bytes as U+FFFD.
std::string take_certain_text(std::string& bytes);

}  // namespace lorry::tokenizer
