#include "net/content_range.h"

#include <charconv>

namespace lorry::net {
namespace {

/// Takes a number off the front of `text`.
bool take_number(std::string_view& text, int64_t& number) {
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (parsed.ec != std::errc() || number < 0) return false;
  text.remove_prefix(size_t(parsed.ptr - text.data()));
  return true;
}

bool take(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

}  // namespace

std::optional<ContentRange> parse_content_range(std::string_view value) {
  ContentRange range;
  if (!take(value, "bytes ")) return std::nullopt;
  if (!take(value, "*")) {
    if (!take_number(value, range.first) || !take(value, "-") || !take_number(value, range.last)) {
      return std::nullopt;
    }
    if (range.last < range.first) return std::nullopt;
  }
  if (!take(value, "/")) return std::nullopt;
  if (!take(value, "*") && !take_number(value, range.total)) return std::nullopt;
  if (!value.empty()) return std::nullopt;
  return range;
}

}  // namespace lorry::net
