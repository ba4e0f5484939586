// The `decoder` of tokenizer.json: token strings back into text.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace lorry::text {

/// One change to a list of token strings. Immutable, hence thread-safe.
class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  virtual void apply(std::vector<std::string>& tokens) const = 0;
};

class Decoder {
 public:
  /// From the JSON value (null: tokens are joined with spaces). What is not supported is named.
  static Result<Decoder> parse(const Json& json);

  /// Whether every token decodes to bytes of its own, so that a text is their concatenation.
  bool byte_level() const { return byte_level_; }
  /// Whether what a run of tokens decodes to depends on nothing behind it, if it does not end in a
  /// byte token (<0x0A>), and on what is before it only by whether that is text.
  bool local() const { return local_; }
  /// The bytes of a token, for a byte-level decoder. They may be part of a character.
  static std::string token_bytes(std::string_view token);

  std::string decode(std::vector<std::string> tokens) const;

 private:
  Result<> add(const Json& json);
  std::vector<std::unique_ptr<const DecoderStep>> steps_;
  bool byte_level_ = false;
  bool local_ = true;
  bool fused_ = false;  // by a step so far
  bool join_with_spaces_ = false;
};

}  // namespace lorry::text
