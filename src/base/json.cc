#include "base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace lorry {
namespace {

/// Copying and writing a value recurse, so what comes from outside may nest only this deep.
constexpr int kMaxDepth = 500;

/// Whether arrays and objects nest deeper than kMaxDepth. Strings are skipped, brackets are not
/// matched: that is the parser's work.
bool too_deep(std::string_view text) {
  int depth = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') {
      for (++i; i < text.size() && text[i] != '"'; ++i) i += text[i] == '\\';
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view what) {
  if (too_deep(text))
    return invalid_input(fmt::format("{}: nested more than {} deep", what, kMaxDepth));
  try {
    return Json::parse(text);
  } catch (const nlohmann::json::parse_error& e) {
    const size_t at = std::min<size_t>(e.byte > 0 ? e.byte - 1 : 0, text.size());
    const auto line = std::count(text.begin(), text.begin() + at, '\n') + 1;
    const size_t line_start = text.rfind('\n', at == 0 ? 0 : at - 1);
    const size_t column = line_start == std::string_view::npos ? at + 1 : at - line_start;
    return invalid_input(
        fmt::format("{}: not valid JSON at line {}, column {}", what, line, column));
  } catch (const std::exception& e) {
    return invalid_input(fmt::format("{}: not valid JSON ({})", what, e.what()));
  }
}

std::string dump_json(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace lorry
