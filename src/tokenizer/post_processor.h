// The `post_processor` of tokenizer.json: ids put before and behind those of a text.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace lorry::tokenizer {

struct PostProcessor {
  std::vector<int32_t> before, after;

  /// From the JSON value (null for none), for a single text. What is not supported is named.
  static Result<PostProcessor> parse(const Json& json);
};

}  // namespace lorry::tokenizer
