#include "data/non_finite.h"

#include <algorithm>

namespace lorry::data {
namespace {

/// Past the string that begins at `at`.
size_t end_of_string(std::string_view json, size_t at) {
  for (++at; at < json.size() && json[at] != '"'; ++at) {
    if (json[at] == '\\') ++at;
  }
  return std::min(at + 1, json.size());
}

bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-'; }

}  // namespace

std::optional<std::string> without_non_finite_numbers(std::string_view json) {
  std::string finite;
  size_t done = 0;
  for (size_t at = 0; at < json.size();) {
    if (json[at] == '"') {
      at = end_of_string(json, at);
      continue;
    }
    size_t end = at;
    while (end < json.size() && is_word(json[end])) ++end;
    const auto word = json.substr(at, end - at);
    if (word == "NaN" || word == "Infinity" || word == "-Infinity") {
      finite.append(json, done, at - done).append("null");
      done = end;
    }
    at = std::max(end, at + 1);
  }
  if (done == 0) return std::nullopt;
  return finite.append(json, done);
}

}  // namespace lorry::data
