#include "cli/visible.h"

#include <fmt/format.h>

#include <cstdint>

#include "tokenizer/unicode.h"

namespace lorry::cli {
namespace {

bool is_control(uint32_t c) { return c < 0x20 || (c >= 0x7F && c < 0xA0); }

/// Characters that nobody sees, though they change what is seen.
bool is_hidden(uint32_t c) {
  return c == 0x061C || c == 0x200B || c == 0x200E || c == 0x200F || c == 0x2028 || c == 0x2029 ||
         (c >= 0x202A && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF ||
         (c >= 0xFFF9 && c <= 0xFFFB) || (c >= 0xE0000 && c <= 0xE0FFF);
}

std::string escaped(uint32_t c) {
  switch (c) {
    case '\n':
      return "\\n";
    case '\t':
      return "\\t";
    case '\r':
      return "\\r";
    default:
      break;
  }
  if (c < 0x100) return fmt::format("\\x{:02x}", c);
  return c < 0x10000 ? fmt::format("\\u{:04x}", c) : fmt::format("\\U{:08x}", c);
}

template <typename Escape>
std::string each_character(std::string_view bytes, const Escape& escape) {
  std::string out;
  while (!bytes.empty()) {
    const auto step = tokenizer::step_utf8(bytes);
    if (step.size > 0) {
      escape(tokenizer::decode_utf8(bytes.data()).code_point, bytes.substr(0, step.size), out);
      bytes.remove_prefix(step.size);
    }
    // An unfinished character at the end counts no broken byte.
    const size_t bad = step.size == 0 && step.bad == 0 ? bytes.size() : step.bad;
    for (const char c : bytes.substr(0, bad)) out += fmt::format("<0x{:02X}>", uint8_t(c));
    bytes.remove_prefix(bad);
  }
  return out;
}

}  // namespace

std::string visible(std::string_view bytes, bool keep_lines) {
  return each_character(bytes, [&](uint32_t c, std::string_view whole, std::string& out) {
    const bool kept = keep_lines && (c == '\n' || c == '\t');
    if (!kept && (is_control(c) || is_hidden(c))) {
      out += escaped(c);
    } else {
      out += whole;
    }
  });
}

std::string with_named_bytes(std::string_view bytes) {
  return each_character(bytes,
                        [](uint32_t, std::string_view whole, std::string& out) { out += whole; });
}

}  // namespace lorry::cli
