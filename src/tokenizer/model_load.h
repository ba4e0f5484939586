// The `model` of tokenizer.json: vocabulary, merges or scores, and options.
#pragma once

#include <simdjson.h>

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "tokenizer/word_model.h"

namespace lorry::tokenizer {

/// What a class of `transformers` says of its model, whatever the file says.
struct ModelChoice {
  bool own_options = false;  ///< BPE's options are the class's: the two below, and no others
  bool fuse_unknown = false;
  bool byte_fallback = false;
  std::string unk_token;               ///< of BPE with `own_options`, and of WordPiece
  std::optional<int32_t> unigram_unk;  ///< Unigram's unk_id
};

/// Names a type that is not supported.
Result<> check_model(const simdjson::dom::object& model);
/// "BPE", "Unigram", ...: of old files, which do not say, by the fields there are.
std::string model_type(const simdjson::dom::object& model);

/// `byte_level`: words come as raw bytes (BPE only).
Result<std::unique_ptr<WordModel>> load_model(const simdjson::dom::object& model,
                                              const ModelChoice& choice, bool byte_level);

}  // namespace lorry::tokenizer
