#include "hub/glob.h"

#include <cstdint>
#include <vector>

namespace lorry::hub {
namespace {

/// The code point at `at`, which moves on; a broken byte stands for itself.
uint32_t next_char(std::string_view text, size_t& at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const int length = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
  if (length == 1 || at + size_t(length) > text.size()) {
    ++at;
    return lead;
  }
  uint32_t code = lead & (0xFFu >> (length + 1));
  for (int i = 1; i < length; ++i) {
    code = code << 6 | (static_cast<unsigned char>(text[at + size_t(i)]) & 0x3Fu);
  }
  at += size_t(length);
  return code;
}

/// The end of a character class that begins at `at` with '[', or npos if it has none.
size_t class_end(std::string_view pattern, size_t at) {
  size_t end = at + 1;
  if (end < pattern.size() && pattern[end] == '!') ++end;
  if (end < pattern.size() && pattern[end] == ']') ++end;
  return pattern.find(']', end);
}

bool in_class(std::string_view members, uint32_t code) {
  const bool negated = members.starts_with('!');
  if (negated) members.remove_prefix(1);
  bool found = false;
  for (size_t at = 0; at < members.size() && !found;) {
    const uint32_t low = next_char(members, at);
    uint32_t high = low;
    if (at + 1 < members.size() && members[at] == '-') {
      ++at;
      high = next_char(members, at);
    }
    found = low <= code && code <= high;
  }
  return found != negated;
}

/// One part against one part.
bool match_part(std::string_view pattern, std::string_view text) {
  size_t p = 0, t = 0;
  size_t star = std::string_view::npos, retry = 0;  // after the last *, and where it began to match
  while (true) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = ++p;
      retry = t;
      continue;
    }
    if (t == text.size()) return p == pattern.size();
    size_t after = t;
    const uint32_t code = next_char(text, after);
    bool matches = false;
    size_t next = p;
    if (p < pattern.size()) {
      const size_t end = pattern[p] == '[' ? class_end(pattern, p) : std::string_view::npos;
      if (end != std::string_view::npos) {
        matches = in_class(pattern.substr(p + 1, end - p - 1), code);
        next = end + 1;
      } else if (pattern[p] == '?') {
        matches = true;
        next = p + 1;
      } else {
        matches = next_char(pattern, next) == code;
      }
    }
    if (matches) {
      p = next;
      t = after;
    } else if (star != std::string_view::npos) {
      p = star;
      next_char(text, retry);
      t = retry;
    } else {
      return false;
    }
  }
}

std::vector<std::string_view> split(std::string_view path) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t slash = path.find('/');
    parts.push_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return parts;
    path.remove_prefix(slash + 1);
  }
}

bool match_parts(const std::vector<std::string_view>& pattern, size_t p,
                 const std::vector<std::string_view>& path, size_t q) {
  if (p == pattern.size()) return q == path.size();
  if (pattern[p] == "**") {
    if (p + 1 == pattern.size()) return q < path.size();
    for (size_t skip = q; skip < path.size(); ++skip) {
      if (match_parts(pattern, p + 1, path, skip)) return true;
    }
    return false;
  }
  if (q == path.size() || (pattern[p] == "*" && path[q].empty())) return false;
  return match_part(pattern[p], path[q]) && match_parts(pattern, p + 1, path, q + 1);
}

}  // namespace

bool has_magic(std::string_view pattern) {
  return pattern.find_first_of("*?[") != std::string_view::npos;
}

bool glob_match(std::string_view pattern, std::string_view path) {
  return match_parts(split(pattern), 0, split(path), 0);
}

}  // namespace lorry::hub
