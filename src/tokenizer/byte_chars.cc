#include "tokenizer/byte_chars.h"

#include <array>

#include "tokenizer/unicode.h"

namespace lorry::tokenizer {
namespace {

struct Tables {
  std::array<uint16_t, 256> to_char{};
  std::array<int16_t, 512> to_byte{};

  Tables() {
    to_byte.fill(-1);
    uint16_t next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      to_char[b] = printable ? static_cast<uint16_t>(b) : next++;
      to_byte[to_char[b]] = static_cast<int16_t>(b);
    }
  }
};

const Tables kTables;

}  // namespace

uint32_t byte_to_char(uint8_t byte) { return kTables.to_char[byte]; }

std::optional<uint8_t> char_to_byte(uint32_t c) {
  if (c >= kTables.to_byte.size() || kTables.to_byte[c] < 0) return std::nullopt;
  return static_cast<uint8_t>(kTables.to_byte[c]);
}

std::string bytes_to_chars(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char b : bytes) append_utf8(out, byte_to_char(static_cast<uint8_t>(b)));
  return out;
}

std::optional<std::string> chars_to_bytes(std::string_view token) {
  std::string out;
  for (size_t i = 0; i < token.size();) {
    const Decoded d = decode_utf8(token.data() + i);
    const auto byte = char_to_byte(d.code_point);
    if (!byte) return std::nullopt;
    out += static_cast<char>(*byte);
    i += d.size;
  }
  return out;
}

}  // namespace lorry::tokenizer
