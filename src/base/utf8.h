// Characters of UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lorry {

/// Whether a byte is not the first of its character.
inline bool is_utf8_continuation(char c) { return (static_cast<uint8_t>(c) & 0xC0) == 0x80; }

/// Appends a code point below 0x110000.
void append_utf8(std::string& out, uint32_t code_point);

/// The first byte of the character that holds byte `at`; `at` itself at the end of the text. The
/// text before it is whole where `text` is.
size_t utf8_start(std::string_view text, size_t at);

}  // namespace lorry
