// What pretokenizing counts of the rows that it writes.
#pragma once

#include <cstdint>

#include "base/json.h"
#include "text/chat.h"

namespace lorry::pipeline {

struct TokenCounts {
  /// Lengths for which info.json says how many rows are longer: what a --max-length would cut.
  static constexpr int64_t kLengths[] = {512, 1024, 2048, 4096, 8192, 16384, 32768};

  int64_t rows = 0, tokens = 0;
  int64_t target_tokens = 0;        ///< whose mask is 1
  int64_t rows_without_target = 0;  ///< written, with nothing to train on
  int64_t longest = 0;
  int64_t longer[std::size(kLengths)] = {};

  /// True if the row has something to train on.
  bool count(const text::EncodedExample& example);
  void add(const TokenCounts& other);
  int64_t longer_than_4096() const { return longer[3]; }

  /// As info.json has them, and back; what is missing is 0.
  Json to_json() const;
  static TokenCounts from_json(const Json& json);
};

}  // namespace lorry::pipeline
