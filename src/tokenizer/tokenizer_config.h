// What `transformers` makes of tokenizer.json when it reads tokenizer_config.json beside it: some
// classes bring their own components, and special tokens are added on top.
#pragma once

#include <nlohmann/json.hpp>  // members, not only references
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/model_load.h"

namespace lorry::tokenizer {

/// The small parts of tokenizer.json, and the other files as JSON (null where absent).
struct TokenizerParts {
  Json added_tokens, normalizer, pre_tokenizer, post_processor, decoder;
  Json config, special_tokens_map, model_config;
  std::string model_type;  ///< "BPE", "Unigram", ...
};

/// Special tokens around a text, by name ("bos_token").
struct TokenWrapper {
  std::vector<std::string> before, after;
};

struct TokenizerPlan {
  std::string tokenizer_class;  ///< "" unless the class brings its own components
  ModelChoice model;
  std::optional<TokenWrapper> wrapper;  ///< instead of `post_processor`
  Json normalizer, pre_tokenizer, post_processor, decoder;
  std::vector<AddedToken> added_tokens;  ///< in the order of adding
  Json special_tokens_map;               ///< name to string, as templates see them
  bool split_special_tokens = false;
};

Result<TokenizerPlan> plan_tokenizer(const TokenizerParts& parts);

}  // namespace lorry::tokenizer
