#include "jinja/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>

namespace lorry::jinja {

char32_t next_code_point_beyond_ascii(std::string_view s, size_t& pos) {
  const auto byte = static_cast<uint8_t>(s[pos]);
  utf8proc_int32_t c = 0;
  const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(s.data() + pos),
                                  static_cast<utf8proc_ssize_t>(s.size() - pos), &c);
  if (n <= 0) {
    ++pos;
    return 0xDC80 + (byte - 0x80);
  }
  pos += static_cast<size_t>(n);
  return static_cast<char32_t>(c);
}

void append_code_point(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c >= 0xDC80 && c <= 0xDCFF) {
    out += static_cast<char>(c - 0xDC80 + 0x80);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

bool is_ascii(std::string_view s) {
  constexpr size_t kWord = sizeof(uint64_t);
  size_t i = 0;
  for (; i + kWord <= s.size(); i += kWord) {
    uint64_t word;
    std::memcpy(&word, s.data() + i, kWord);
    if ((word & 0x8080808080808080) != 0) return false;
  }
  for (; i < s.size(); ++i) {
    if (static_cast<uint8_t>(s[i]) >= 0x80) return false;
  }
  return true;
}

size_t find_text(std::string_view s, std::string_view sub, size_t from) {
  if (from > s.size()) return std::string_view::npos;
  // memchr is several times as fast as memmem where the first byte is rare, as that of a tag is.
  for (int tries = 0; tries < 8 && !sub.empty(); ++tries) {
    const size_t at = s.find(sub.front(), from);
    if (at == std::string_view::npos || s.substr(at).starts_with(sub)) return at;
    from = at + 1;
  }
  const void* at = memmem(s.data() + from, s.size() - from, sub.data(), sub.size());
  if (at == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(at) - s.data());
}

size_t plain_run(std::string_view s, size_t pos, char quote, bool all) {
  constexpr uint64_t kOnes = 0x0101010101010101, kHigh = 0x8080808080808080;
  const auto has_byte = [](uint64_t word, uint8_t byte) {
    const uint64_t x = word ^ (kOnes * byte);
    return (x - kOnes) & ~x & kHigh;
  };
  size_t end = pos;
  for (uint64_t word; end + sizeof word <= s.size(); end += sizeof word) {
    std::memcpy(&word, s.data() + end, sizeof word);
    const uint64_t control = (word - kOnes * 0x20) & ~word & kHigh;
    const uint64_t others = all ? 0 : (word & kHigh) | has_byte(word, 0x7f);
    if ((control | others | has_byte(word, static_cast<uint8_t>(quote)) | has_byte(word, '\\')) !=
        0) {
      break;
    }
  }
  const auto is_plain = [&](uint8_t c) {
    return c >= 0x20 && c != '\\' && c != static_cast<uint8_t>(quote) && (all || c < 0x7f);
  };
  while (end < s.size() && is_plain(static_cast<uint8_t>(s[end]))) ++end;
  return end - pos;
}

size_t code_point_count(std::string_view s) {
  if (is_ascii(s)) return s.size();
  size_t n = 0;
  for (size_t pos = 0; pos < s.size(); ++n) next_code_point(s, pos);
  return n;
}

size_t byte_offset(std::string_view s, size_t index) {
  size_t pos = 0;
  for (; index > 0 && pos < s.size(); --index) next_code_point(s, pos);
  return pos;
}

bool is_space_beyond_ascii(char32_t c) {
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_line_end(char32_t c) {
  return (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

namespace {

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

// Full case mappings that change the length (Unicode SpecialCasing.txt, the unconditional ones that
// text is likely to hold).
const char* special_upper(char32_t c) {
  switch (c) {
    case 0xDF:
      return "SS";
    case 0x149:
      return "\xCA\xBCN";
    case 0x1F0:
      return "J\xCC\x8C";
    case 0x390:
      return "\xCE\x99\xCC\x88\xCC\x81";
    case 0x3B0:
      return "\xCE\xA5\xCC\x88\xCC\x81";
    case 0x587:
      return "\xD4\xB5\xD5\x92";
    case 0xFB00:
      return "FF";
    case 0xFB01:
      return "FI";
    case 0xFB02:
      return "FL";
    case 0xFB03:
      return "FFI";
    case 0xFB04:
      return "FFL";
    case 0xFB05:
    case 0xFB06:
      return "ST";
    default:
      return nullptr;
  }
}

const char* special_title(char32_t c) {
  switch (c) {
    case 0xDF:
      return "Ss";
    case 0xFB00:
      return "Ff";
    case 0xFB01:
      return "Fi";
    case 0xFB02:
      return "Fl";
    case 0xFB03:
      return "Ffi";
    case 0xFB04:
      return "Ffl";
    case 0xFB05:
    case 0xFB06:
      return "St";
    default:
      return special_upper(c);
  }
}

bool surrogate(char32_t c) { return c >= 0xD800 && c <= 0xDFFF; }

void append_upper(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  } else if (const char* special = special_upper(c)) {
    out += special;
  } else {
    append_code_point(out, surrogate(c) ? c : static_cast<char32_t>(utf8proc_toupper(c)));
  }
}

void append_title(std::string& out, char32_t c) {
  if (c < 0x80) {
    append_upper(out, c);
  } else if (const char* special = special_title(c)) {
    out += special;
  } else {
    append_code_point(out, surrogate(c) ? c : static_cast<char32_t>(utf8proc_totitle(c)));
  }
}

bool cased(char32_t c) { return is_upper(c) || is_lower(c) || category(c) == UTF8PROC_CATEGORY_LT; }

// Sigma at the end of a word has its own lower case.
bool final_sigma(std::string_view s, size_t at, size_t behind) {
  bool before = false;
  for (size_t pos = 0; pos < at;) {
    const char32_t c = next_code_point(s, pos);
    if (c == '\'' || category(c) == UTF8PROC_CATEGORY_MN) continue;
    before = cased(c);
  }
  if (!before) return false;
  for (size_t pos = behind; pos < s.size();) {
    const char32_t c = next_code_point(s, pos);
    if (c == '\'' || category(c) == UTF8PROC_CATEGORY_MN) continue;
    return !cased(c);
  }
  return true;
}

void append_lower(std::string& out, char32_t c, std::string_view s, size_t at, size_t behind) {
  if (c < 0x80) {
    out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  } else if (c == 0x130) {
    out += "i\xCC\x87";
  } else if (c == 0x3A3) {
    out += final_sigma(s, at, behind) ? "\xCF\x82" : "\xCF\x83";
  } else {
    append_code_point(out, surrogate(c) ? c : static_cast<char32_t>(utf8proc_tolower(c)));
  }
}

}  // namespace

bool is_printable(char32_t c) {
  if (c < 0x80) return c >= 0x20 && c < 0x7f;
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool is_alpha(char32_t c) {
  const auto k = category(c);
  return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

bool is_digit(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  return category(c) == UTF8PROC_CATEGORY_ND || c == 0xB2 || c == 0xB3 || c == 0xB9;
}

bool is_upper(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z';
  return category(c) == UTF8PROC_CATEGORY_LU;
}

bool is_lower(char32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z';
  return category(c) == UTF8PROC_CATEGORY_LL || c == 0xAA || c == 0xBA;
}

std::string to_upper(std::string_view s) {
  std::string out;
  for (size_t pos = 0; pos < s.size();) append_upper(out, next_code_point(s, pos));
  return out;
}

std::string to_lower(std::string_view s) {
  std::string out;
  for (size_t pos = 0; pos < s.size();) {
    const size_t at = pos;
    const char32_t c = next_code_point(s, pos);
    append_lower(out, c, s, at, pos);
  }
  return out;
}

std::string capitalize(std::string_view s) {
  std::string out;
  for (size_t pos = 0; pos < s.size();) {
    const size_t at = pos;
    const char32_t c = next_code_point(s, pos);
    if (at == 0) {
      append_title(out, c);
    } else {
      append_lower(out, c, s, at, pos);
    }
  }
  return out;
}

std::string title(std::string_view s) {
  std::string out;
  bool inside = false;
  for (size_t pos = 0; pos < s.size();) {
    const size_t at = pos;
    const char32_t c = next_code_point(s, pos);
    if (inside) {
      append_lower(out, c, s, at, pos);
    } else {
      append_title(out, c);
    }
    inside = cased(c);
  }
  return out;
}

std::string swapcase(std::string_view s) {
  std::string out;
  for (size_t pos = 0; pos < s.size();) {
    const size_t at = pos;
    const char32_t c = next_code_point(s, pos);
    if (is_upper(c)) {
      append_lower(out, c, s, at, pos);
    } else {
      append_upper(out, c);
    }
  }
  return out;
}

std::string_view strip(std::string_view s, const std::string_view* chars, bool left, bool right) {
  const auto matches = [&](char32_t c) {
    if (chars == nullptr) return is_space(c);
    for (size_t pos = 0; pos < chars->size();) {
      if (next_code_point(*chars, pos) == c) return true;
    }
    return false;
  };
  size_t begin = 0;
  size_t end = s.size();
  while (left && begin < end) {
    size_t pos = begin;
    if (!matches(next_code_point(s, pos))) break;
    begin = pos;
  }
  while (right && end > begin) {
    size_t pos = end - 1;  // back to the first byte of the last code point
    while (pos > begin && end - pos < 4 && (static_cast<uint8_t>(s[pos]) & 0xC0) == 0x80) --pos;
    size_t behind = pos;
    char32_t c = next_code_point(s, behind);
    if (behind != end) {
      pos = end - 1;
      behind = pos;
      c = next_code_point(s, behind);
    }
    if (!matches(c)) break;
    end = pos;
  }
  return s.substr(begin, end - begin);
}

}  // namespace lorry::jinja
