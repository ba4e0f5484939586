// Tokenizers from the Hub's tokenizer.json, with the ids that `transformers` gives.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace lorry::tokenizer {

class DecoderRun;

/// Ids of a text and where each token lies in it.
struct Encoding {
  std::vector<int32_t> ids;
  /// Byte ranges [begin, end) of the *input* text, one a token. A token that no input byte made
  /// (a BOS from the post-processor) has an empty range.
  std::vector<std::pair<uint32_t, uint32_t>> offsets;
};

/// The contents of the files that decide ids; "" for one that is not there.
struct TokenizerFiles {
  std::string_view tokenizer_json;
  std::string_view tokenizer_config_json;
  std::string_view special_tokens_map_json;  ///< older models name their special tokens here
  std::string_view model_config_json;        ///< config.json: `model_type` can choose a class
};

/// Immutable after loading, hence thread-safe.
class Tokenizer {
 public:
  /// From the contents of tokenizer.json and, if there is one, tokenizer_config.json ("" if not).
  /// A component that is not supported is named in the error, before any text is touched.
  static Result<std::shared_ptr<const Tokenizer>> load(std::string_view tokenizer_json,
                                                       std::string_view tokenizer_config_json);
  static Result<std::shared_ptr<const Tokenizer>> load(const TokenizerFiles& files);
  ~Tokenizer();

  /// `add_special_tokens` runs the post-processor (BOS, EOS), as in `transformers`. Special tokens
  /// that stand in the text are recognised either way. Bytes that are not UTF-8 count as U+FFFD.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens) const;
  void encode_append(std::string_view text, bool add_special_tokens,
                     std::vector<int32_t>& ids) const;
  Encoding encode_with_offsets(std::string_view text, bool add_special_tokens) const;

  /// As `transformers` with clean_up_tokenization_spaces=False. Bytes that are not UTF-8 become
  /// U+FFFD.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  /// The bytes that the token adds to a text, at its start or after other tokens. They may be part
  /// of a character, so they need not be UTF-8. "" for an id that is no token.
  std::string token_bytes(int32_t id, bool at_start) const;

  /// One more than the largest id.
  int32_t vocab_size() const;
  std::optional<int32_t> token_to_id(std::string_view token) const;
  bool is_special(int32_t id) const;

  /// From tokenizer_config.json; nullopt where it names none.
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  /// Named special tokens as templates see them: bos_token, eos_token, pad_token, unk_token, ...
  const Json& special_tokens_map() const;

  /// SHA-256 over what decides ids; recorded in info.json.
  const std::string& digest() const;

 private:
  friend class StreamDecoder;
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Decodes one token at a time and never hands out half a UTF-8 character; what it hands out is in
/// all what decode() gives. Not thread-safe.
class StreamDecoder {
 public:
  StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens);
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;
  ~StreamDecoder();
  /// The text that became certain with this id; may be empty.
  std::string push(int32_t id);
  /// What is left, broken bytes as U+FFFD.
  std::string finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_tokens_;
  std::string bytes_;                // of an unfinished character, if tokens are bytes
  std::unique_ptr<DecoderRun> run_;  // if not, from the first token on
};

}  // namespace lorry::tokenizer
