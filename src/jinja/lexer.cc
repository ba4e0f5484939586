#include "jinja/lexer.h"

#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "jinja/unicode.h"
#include "jinja/value.h"

namespace lorry::jinja {

namespace {

// \r\n and \r become \n, and one newline at the end goes.
std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool is_name_char(char32_t c) {
  if (c < 0x80) return (c >= '0' && c <= '9') || c == '_' || ((c | 32) >= 'a' && (c | 32) <= 'z');
  const auto k = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return is_alpha(c) || k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL ||
         k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_PC;
}

bool digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<Token> run() {
    while (pos_ < source_.size()) root();
    push(Tok::kEof, {});
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(std::string message) { throw TemplateError{std::move(message), line_}; }

  bool at(std::string_view s) const { return source_.substr(pos_, s.size()) == s; }
  bool at(size_t pos, std::string_view s) const { return source_.substr(pos, s.size()) == s; }

  void push(Tok type, std::string text) {
    Token token;
    token.type = type;
    token.line = line_;
    token.text = std::move(text);
    tokens_.push_back(std::move(token));
  }

  // Moves to `pos`, counting lines.
  void advance(size_t pos) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(pos_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(pos), '\n'));
    pos_ = pos;
    if (pos > 0) line_starting_ = source_[pos - 1] == '\n';
  }

  size_t skip_space(size_t pos) const {
    while (pos < source_.size()) {
      size_t behind = pos;
      if (!is_space(next_code_point(source_, behind))) break;
      pos = behind;
    }
    return pos;
  }

  // Where a `{% raw %}` tag that begins at `pos` ends; npos if it is none.
  size_t raw_begin_end(size_t pos) const {
    pos += 2;
    if (at(pos, "-") || at(pos, "+")) ++pos;
    pos = skip_space(pos);
    if (!at(pos, "raw")) return std::string_view::npos;
    pos = skip_space(pos + 3);
    if (at(pos, "-%}")) return skip_space(pos + 3);
    return at(pos, "%}") ? pos + 2 : std::string_view::npos;
  }

  // Data in front of a tag, stripped as the tag's sign and lstrip_blocks ask.
  void push_data(std::string_view data, char sign, bool variable) {
    if (sign == '-') {
      data = strip(data, nullptr, false, true);
    } else if (sign != '+' && !variable) {
      const size_t newline = data.rfind('\n');
      const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line_begin > 0 || line_starting_) && line_begin < data.size() &&
          strip(data.substr(line_begin), nullptr, true, false).empty()) {
        data = data.substr(0, line_begin);
      }
    }
    if (!data.empty()) push(Tok::kData, std::string(data));
  }

  char sign_at(size_t pos) const {
    return pos < source_.size() && (source_[pos] == '-' || source_[pos] == '+') ? source_[pos] : 0;
  }

  void root() {
    size_t tag = pos_;
    while ((tag = source_.find('{', tag)) != std::string_view::npos) {
      if (at(tag, "{%") || at(tag, "{{") || at(tag, "{#")) break;
      ++tag;
    }
    if (tag == std::string_view::npos) {
      push(Tok::kData, std::string(source_.substr(pos_)));
      advance(source_.size());
      return;
    }
    const char kind = source_[tag + 1];
    const char sign = sign_at(tag + 2);
    push_data(source_.substr(pos_, tag - pos_), sign, kind == '{');
    const size_t behind = tag + 2 + (sign != 0);
    if (kind == '#') {
      advance(behind);
      comment();
    } else if (const size_t end = kind == '%' ? raw_begin_end(tag) : std::string_view::npos;
               end != std::string_view::npos) {
      advance(end);
      raw();
    } else {
      advance(tag);
      push(kind == '{' ? Tok::kVariableBegin : Tok::kBlockBegin, {});
      advance(behind);
      tag_body(kind == '{');
    }
  }

  // The end of a block-like tag at `pos` whose closing characters are `close`; npos if not there.
  size_t close_end(size_t pos, std::string_view close) const {
    if (at(pos, "+") && at(pos + 1, close)) return pos + 3;
    if (at(pos, "-") && at(pos + 1, close)) return skip_space(pos + 3);
    if (!at(pos, close)) return std::string_view::npos;
    return pos + 2 + (at(pos + 2, "\n") ? 1 : 0);
  }

  void comment() {
    for (size_t pos = pos_; pos < source_.size(); ++pos) {
      const size_t end = close_end(pos, "#}");
      if (end == std::string_view::npos) continue;
      advance(end);
      return;
    }
    fail("missing end of comment tag");
  }

  void raw() {
    for (size_t pos = source_.find("{%", pos_); pos != std::string_view::npos;
         pos = source_.find("{%", pos + 1)) {
      const char sign = sign_at(pos + 2);
      size_t behind = skip_space(pos + 2 + (sign != 0));
      if (!at(behind, "endraw")) continue;
      behind = close_end(skip_space(behind + 6), "%}");
      if (behind == std::string_view::npos) continue;
      push_data(source_.substr(pos_, pos - pos_), sign, false);
      advance(behind);
      return;
    }
    fail("missing end of raw directive");
  }

  void tag_body(bool variable) {
    std::string open;  // brackets that are waiting to be closed
    while (pos_ < source_.size()) {
      if (open.empty() && end_tag(variable)) return;
      size_t behind = skip_space(pos_);
      if (behind != pos_) {
        advance(behind);
      } else if (digit(source_[pos_])) {
        number();
      } else if (source_[pos_] == '\'' || source_[pos_] == '"') {
        string();
      } else if (is_name_char(next_code_point(source_, behind))) {
        name();
      } else {
        op(open);
      }
    }
  }

  bool end_tag(bool variable) {
    size_t end = std::string_view::npos;
    if (!variable) {
      end = close_end(pos_, "%}");
    } else if (at("-}}")) {
      end = skip_space(pos_ + 3);
    } else if (at("}}")) {
      end = pos_ + 2;
    }
    if (end == std::string_view::npos) return false;
    push(variable ? Tok::kVariableEnd : Tok::kBlockEnd, {});
    advance(end);
    return true;
  }

  // Digits with single underscores between them, from `pos`; returns the end.
  size_t digits(size_t pos) const {
    while (pos < source_.size() &&
           (digit(source_[pos]) ||
            (source_[pos] == '_' && pos + 1 < source_.size() && digit(source_[pos + 1])))) {
      ++pos;
    }
    return pos;
  }

  void number() {
    size_t end = digits(pos_);
    const bool after_dot = pos_ > 0 && source_[pos_ - 1] == '.';
    const bool fraction = at(end, ".") && end + 1 < source_.size() && digit(source_[end + 1]);
    size_t float_end = fraction ? digits(end + 1) : end;
    bool exponent = false;
    if (at(float_end, "e") || at(float_end, "E")) {
      size_t e = float_end + 1;
      if (at(e, "+") || at(e, "-")) ++e;
      if (e < source_.size() && digit(source_[e])) {
        float_end = digits(e);
        exponent = true;
      }
    }
    if (!after_dot && (fraction || exponent)) {
      std::string text(source_.substr(pos_, float_end - pos_));
      std::erase(text, '_');
      push(Tok::kFloat, {});
      tokens_.back().real = std::strtod(text.c_str(), nullptr);
      advance(float_end);
      return;
    }
    integer(end);
  }

  void integer(size_t end) {
    int base = 10;
    size_t begin = pos_;
    if (source_[pos_] == '0' && pos_ + 2 < source_.size()) {
      const char kind = static_cast<char>(source_[pos_ + 1] | 32);
      base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
    }
    if (base != 10) {
      begin = end = pos_ + 2;
      while (end < source_.size() && (std::isxdigit(source_[end]) != 0 || source_[end] == '_'))
        ++end;
    } else if (source_[pos_] == '0') {
      end = pos_;
      while (at(end, "0")) ++end;
    }
    std::string text(source_.substr(begin, end - begin));
    std::erase(text, '_');
    int64_t value = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) {
      fail("the number '" + text + "' is too large or not a number");
    }
    push(Tok::kInteger, {});
    tokens_.back().integer = value;
    advance(end);
  }

  void name() {
    size_t end = pos_;
    while (end < source_.size()) {
      size_t behind = end;
      if (!is_name_char(next_code_point(source_, behind))) break;
      end = behind;
    }
    push(Tok::kName, std::string(source_.substr(pos_, end - pos_)));
    advance(end);
  }

  void string() {
    const char quote = source_[pos_];
    size_t end = pos_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail("a string is not closed");
    push(Tok::kString, unescape(source_.substr(pos_ + 1, end - pos_ - 1)));
    advance(end + 1);
  }

  std::string unescape(std::string_view s) {
    std::string out;
    for (size_t i = 0; i < s.size(); ++i) {
      if (s[i] != '\\' || i + 1 >= s.size()) {
        out += s[i];
        continue;
      }
      i = escape(s, i + 1, out);
    }
    return out;
  }

  // Handles the escape whose letter is at `i`; returns the place of its last character.
  size_t escape(std::string_view s, size_t i, std::string& out) {
    static constexpr std::string_view kLetters = "abfnrtv\\'\"";
    static constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
    const char c = s[i];
    if (const size_t k = kLetters.find(c); k != std::string_view::npos) {
      out += kMeanings[k];
      return i;
    }
    if (c == '\n') return i;
    if (c == 'x') return code_point(s, i, 2, out);
    if (c == 'u') return code_point(s, i, 4, out);
    if (c == 'U') return code_point(s, i, 8, out);
    if (c == 'N') fail("\\N{...} escapes are not supported");
    if (c >= '0' && c <= '7') {
      uint32_t value = 0;
      size_t end = i;
      while (end < s.size() && end < i + 3 && s[end] >= '0' && s[end] <= '7') {
        value = value * 8 + static_cast<uint32_t>(s[end++] - '0');
      }
      append_code_point(out, value);
      return end - 1;
    }
    out += '\\';
    out += c;
    return i;
  }

  size_t code_point(std::string_view s, size_t i, size_t n, std::string& out) {
    uint32_t value = 0;
    const std::string_view hex = s.substr(i + 1, n);
    const auto parsed = std::from_chars(hex.data(), hex.data() + hex.size(), value, 16);
    if (hex.size() != n || parsed.ptr != hex.data() + n || value > 0x10FFFF) {
      fail("a string has a truncated \\x, \\u or \\U escape");
    }
    append_code_point(out, value);
    return i + n;
  }

  void op(std::string& open) {
    static constexpr std::string_view kTwo[] = {"//", "**", "==", "!=", ">=", "<="};
    static constexpr std::string_view kOne = "+-/*%~[](){}><=.:|,;";
    size_t size = 0;
    for (const auto two : kTwo) size = at(two) ? 2 : size;
    const char c = source_[pos_];
    if (size == 0 && kOne.find(c) != std::string_view::npos) size = 1;
    if (size == 0) {
      size_t behind = pos_;
      next_code_point(source_, behind);
      fail("unexpected character '" + std::string(source_.substr(pos_, behind - pos_)) + "'");
    }
    if (c == '(') open += ')';
    if (c == '[') open += ']';
    if (c == '{') open += '}';
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) fail(std::string("unexpected '") + c + "'");
      if (open.back() != c) {
        fail(std::string("unexpected '") + c + "', expected '" + open.back() + "'");
      }
      open.pop_back();
    }
    push(Tok::kOperator, std::string(source_.substr(pos_, size)));
    advance(pos_ + size);
  }

  std::string_view source_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  const std::string text = normalize_newlines(source);
  return Lexer(text).run();
}

}  // namespace lorry::jinja
