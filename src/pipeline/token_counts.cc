#include "pipeline/token_counts.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

namespace lorry::pipeline {

bool TokenCounts::count(const text::EncodedExample& example) {
  const auto length = static_cast<int64_t>(example.input_ids.size());
  const auto targets =
      std::count(example.assistant_masks.begin(), example.assistant_masks.end(), 1);
  ++rows;
  tokens += length;
  target_tokens += targets;
  rows_without_target += targets == 0;
  longest = std::max(longest, length);
  for (size_t i = 0; i < std::size(kLengths); ++i) longer[i] += length > kLengths[i];
  return targets > 0;
}

void TokenCounts::add(const TokenCounts& other) {
  rows += other.rows;
  tokens += other.tokens;
  target_tokens += other.target_tokens;
  rows_without_target += other.rows_without_target;
  longest = std::max(longest, other.longest);
  for (size_t i = 0; i < std::size(kLengths); ++i) longer[i] += other.longer[i];
}

Json TokenCounts::to_json() const {
  Json by_length = Json::object();
  for (size_t i = 0; i < std::size(kLengths); ++i) {
    by_length[std::to_string(kLengths[i])] = longer[i];
  }
  return {{"rows", rows},
          {"tokens", tokens},
          {"target_tokens", target_tokens},
          {"rows_without_target", rows_without_target},
          {"longest", longest},
          {"rows_longer_than", std::move(by_length)}};
}

TokenCounts TokenCounts::from_json(const Json& json) {
  TokenCounts counts;
  const auto number = [&](const char* name) { return json.value(name, int64_t{0}); };
  counts.rows = number("rows");
  counts.tokens = number("tokens");
  counts.target_tokens = number("target_tokens");
  counts.rows_without_target = number("rows_without_target");
  counts.longest = number("longest");
  const Json by_length = json.value("rows_longer_than", Json::object());
  for (size_t i = 0; i < std::size(kLengths); ++i) {
    counts.longer[i] = by_length.value(std::to_string(kLengths[i]), int64_t{0});
  }
  return counts;
}

}  // namespace lorry::pipeline
