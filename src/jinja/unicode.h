// UTF-8 strings seen as Python sees them: sequences of code points.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lorry::jinja {

/// Decodes the code point at `pos` and moves behind it. A byte that is not UTF-8 counts as one
/// code point, U+DC80 + (byte - 0x80), as Python's surrogateescape does.
char32_t next_code_point_beyond_ascii(std::string_view s, size_t& pos);
inline char32_t next_code_point(std::string_view s, size_t& pos) {
  const auto byte = static_cast<uint8_t>(s[pos]);
  if (byte >= 0x80) return next_code_point_beyond_ascii(s, pos);
  ++pos;
  return byte;
}
void append_code_point(std::string& out, char32_t c);

bool is_ascii(std::string_view s);
/// s.find(sub, from) in time that grows with the sum of their sizes, not with the product.
size_t find_text(std::string_view s, std::string_view sub, size_t from = 0);

/// How many bytes of `s` from `pos` on are ASCII that JSON and repr() print as it is: no control
/// characters, no backslash, no `quote`. With `all` bytes of other characters count too.
size_t plain_run(std::string_view s, size_t pos, char quote, bool all = false);
/// Number of code points.
size_t code_point_count(std::string_view s);
/// Byte offset of code point `index` (at most the count).
size_t byte_offset(std::string_view s, size_t index);

/// str.isspace, the line ends of str.splitlines, and what repr() prints as it is.
bool is_space_beyond_ascii(char32_t c);
inline bool is_space(char32_t c) {
  return c < 0x80 ? (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) : is_space_beyond_ascii(c);
}
bool is_line_end(char32_t c);
bool is_printable(char32_t c);

bool is_alpha(char32_t c);
bool is_digit(char32_t c);
bool is_upper(char32_t c);
bool is_lower(char32_t c);

std::string to_upper(std::string_view s);
std::string to_lower(std::string_view s);
std::string capitalize(std::string_view s);
/// str.title: a letter after a non-letter is upper case.
std::string title(std::string_view s);
std::string swapcase(std::string_view s);

/// Strip of white space (`chars` null) or of any code point of `chars`.
std::string_view strip(std::string_view s, const std::string_view* chars, bool left, bool right);

}  // namespace lorry::jinja
