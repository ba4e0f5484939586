#include "data/python_literal.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "base/utf8.h"

namespace lorry::data {
namespace {

constexpr int kDeepest = 64;

class Parser {
 public:
  explicit Parser(std::string_view text) : rest_(text) {}

  std::optional<Json> run() {
    auto parsed = value(0);
    skip_space();
    return parsed && rest_.empty() ? parsed : std::nullopt;
  }

 private:
  void skip_space() {
    const size_t begin = rest_.find_first_not_of(" \t\r\n");
    rest_.remove_prefix(std::min(begin, rest_.size()));
  }

  bool take(std::string_view word) {
    skip_space();
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  std::optional<Json> value(int depth) {
    skip_space();
    if (rest_.empty() || depth > kDeepest) return std::nullopt;
    if (take("None")) return Json();
    if (take("True")) return Json(true);
    if (take("False")) return Json(false);
    if (take("[")) return list(']', depth);
    if (take("(")) return list(')', depth);
    if (take("{")) return dict(depth);
    if (rest_[0] == '\'' || rest_[0] == '"') return string();
    return number();
  }

  std::optional<Json> list(char close, int depth) {
    const std::string_view end(&close, 1);
    Json values = Json::array();
    while (!take(end)) {
      auto each = value(depth + 1);
      if (!each) return std::nullopt;
      const bool is_dict = each->is_object();
      values.push_back(*std::move(each));
      if (take(",")) continue;
      skip_space();
      const bool dict_follows = is_dict && rest_.starts_with('{');
      if (!dict_follows && !rest_.starts_with(close)) return std::nullopt;
    }
    return values;
  }

  std::optional<Json> dict(int depth) {
    Json values = Json::object();
    while (!take("}")) {
      skip_space();
      auto key = string();
      if (!key || !take(":")) return std::nullopt;
      auto each = value(depth + 1);
      if (!each) return std::nullopt;
      values[key->get_ref<const std::string&>()] = *std::move(each);
      if (!take(",") && !rest_.starts_with('}')) return std::nullopt;
    }
    return values;
  }

  std::optional<Json> number() {
    const size_t end = rest_.find_first_not_of("+-.0123456789eE");
    const auto parsed = parse_json(std::string(rest_.substr(0, end)), "");
    if (!parsed.ok() || !parsed->is_number()) return std::nullopt;
    rest_.remove_prefix(std::min(end, rest_.size()));
    return *parsed;
  }

  std::optional<Json> string() {
    if (rest_.empty() || (rest_[0] != '\'' && rest_[0] != '"')) return std::nullopt;
    const char quote = rest_[0];
    std::string text;
    size_t i = 1;
    while (i < rest_.size() && rest_[i] != quote) {
      if (rest_[i] != '\\') {
        text += rest_[i++];
      } else if (!escape(i, text)) {
        return std::nullopt;
      }
    }
    if (i >= rest_.size()) return std::nullopt;
    rest_.remove_prefix(i + 1);
    return Json(std::move(text));
  }

  /// Reads the escape at `i` and goes past it.
  bool escape(size_t& i, std::string& text) {
    if (i + 1 >= rest_.size()) return false;
    const char kind = rest_[i + 1];
    i += 2;
    constexpr std::string_view kPlain = "nrt\\'\"abfv0", kMeaning{"\n\r\t\\'\"\a\b\f\v\0", 11};
    if (const size_t at = kPlain.find(kind); at != std::string_view::npos) {
      text += kMeaning[at];
      return true;
    }
    const size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
    if (digits == 0 || i + digits > rest_.size()) return false;
    uint32_t code = 0;
    for (const char c : rest_.substr(i, digits)) {
      if (!std::isxdigit(static_cast<unsigned char>(c))) return false;
      code = code * 16 + uint32_t(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    i += digits;
    const bool is_surrogate = code >= 0xD800 && code < 0xE000;
    if (is_surrogate || code > 0x10FFFF) return false;
    append_utf8(text, code);
    return true;
  }

  std::string_view rest_;
};

}  // namespace

std::optional<Json> parse_python_literal(std::string_view text) { return Parser(text).run(); }

}  // namespace lorry::data
