// Python's ways to turn values into text, "%" and str.format; and back: int(), float().
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "jinja/interp.h"
#include "jinja/unicode.h"

namespace lorry::jinja {

// ---- numbers out of text

bool parse_int(std::string_view text, int base, int64_t& out) {
  text = strip(text, nullptr, true, true);
  bool negative = false;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  const auto prefixed = [&](char letter, int b) {
    return (base == b || base == 0) && text.size() > 2 && text[0] == '0' &&
           (text[1] | 32) == letter;
  };
  for (const auto& [letter, b] : {std::pair{'x', 16}, std::pair{'o', 8}, std::pair{'b', 2}}) {
    if (!prefixed(letter, b)) continue;
    text.remove_prefix(2);
    base = b;
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36 || text.empty() || text.back() == '_' || text.front() == '_')
    return false;
  if (text.find("__") != std::string_view::npos) return false;
  std::string digits(text);
  std::erase(digits, '_');
  if (digits.front() == '-') return false;
  const auto end = digits.data() + digits.size();
  const auto parsed = std::from_chars(digits.data(), end, out, base);
  if (parsed.ec == std::errc::result_out_of_range) raise("an integer is too large");
  if (negative) out = -out;
  return parsed.ec == std::errc() && parsed.ptr == end;
}

bool parse_float(std::string_view text, double& out) {
  std::string s(strip(text, nullptr, true, true));
  if (s.empty() || s.back() == '_' || s.front() == '_') return false;
  std::erase(s, '_');
  const std::string lower = to_lower(s);
  const std::string_view body =
      lower[0] == '-' || lower[0] == '+' ? lower.c_str() + 1 : lower.c_str();
  const bool word = body == "inf" || body == "infinity" || body == "nan";
  if (!word && s.find_first_not_of("0123456789.eE+-") != std::string::npos) return false;
  char* end = nullptr;
  out = std::strtod(s.c_str(), &end);
  return end == s.c_str() + s.size();
}

// ---- format(value, spec)

namespace {

struct Spec {
  std::string fill = " ";
  char align = 0;
  char sign = '-';
  bool alternate = false;
  bool comma = false;
  int width = 0;
  int precision = -1;
  char type = 0;
};

constexpr int kMaxWidth = 1 << 20;

int read_number(std::string_view s, size_t& i) {
  int64_t n = 0;
  while (i < s.size() && s[i] >= '0' && s[i] <= '9') {
    n = std::min<int64_t>(n * 10 + (s[i++] - '0'), kMaxWidth + 1);
  }
  if (n > kMaxWidth) raise("a format asks for too many characters");
  return static_cast<int>(n);
}

bool is_align(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

Spec parse_spec(std::string_view s) {
  Spec spec;
  size_t i = 0;
  if (!s.empty()) {
    size_t behind = 0;
    next_code_point(s, behind);
    if (behind < s.size() && is_align(s[behind])) {
      spec.fill = std::string(s.substr(0, behind));
      spec.align = s[behind];
      i = behind + 1;
    } else if (is_align(s[0])) {
      spec.align = s[0];
      i = 1;
    }
  }
  const auto take = [&](char c) { return i < s.size() && s[i] == c ? (++i, true) : false; };
  for (const char c : {'+', '-', ' '}) {
    if (take(c)) spec.sign = c;
  }
  spec.alternate = take('#');
  if (take('0') && spec.align == 0) {
    spec.fill = "0";
    spec.align = '=';
  }
  spec.width = read_number(s, i);
  spec.comma = take(',');
  if (take('.')) spec.precision = read_number(s, i);
  if (i < s.size()) spec.type = s[i++];
  if (i != s.size()) raise("invalid format specifier '" + std::string(s) + "'");
  return spec;
}

std::string pad(std::string body, std::string prefix, const Spec& spec, char default_align) {
  const auto size = static_cast<int>(code_point_count(body) + prefix.size());
  const char align = spec.align != 0 ? spec.align : default_align;
  const int gap = std::max(0, spec.width - size);
  const int left = align == '<' ? 0 : align == '^' ? gap / 2 : gap;
  const auto fill = [&](int n) {
    std::string out;
    for (int k = 0; k < n; ++k) out += spec.fill;
    return out;
  };
  if (align == '=') return prefix + fill(gap) + body;
  return fill(left) + prefix + body + fill(gap - left);
}

std::string sign_of(bool negative, char sign) {
  if (negative) return "-";
  return sign == '+' ? "+" : sign == ' ' ? " " : "";
}

std::string with_commas(std::string digits) {
  const size_t point = std::min(digits.find_first_not_of("0123456789"), digits.size());
  for (size_t i = point; i > 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

std::string format_int(int64_t n, const Spec& spec) {
  const uint64_t magnitude = n < 0 ? 0 - static_cast<uint64_t>(n) : static_cast<uint64_t>(n);
  std::string prefix = sign_of(n < 0, spec.sign);
  std::string digits;
  switch (spec.type) {
    case 0:
    case 'd':
    case 'n':
      digits = fmt::format("{}", magnitude);
      break;
    case 'x':
      digits = fmt::format("{:x}", magnitude);
      break;
    case 'X':
      digits = fmt::format("{:X}", magnitude);
      break;
    case 'o':
      digits = fmt::format("{:o}", magnitude);
      break;
    case 'b':
      digits = fmt::format("{:b}", magnitude);
      break;
    case 'c':
      append_code_point(digits, static_cast<char32_t>(n));
      break;
    default:
      raise(fmt::format("unknown format code '{}' for object of type 'int'", spec.type));
  }
  if (spec.alternate && spec.type != 0 && spec.type != 'd') {
    prefix += '0';
    prefix += spec.type;
  }
  if (spec.comma) digits = with_commas(std::move(digits));
  return pad(std::move(digits), std::move(prefix), spec, '>');
}

std::string float_digits(double d, const Spec& spec) {
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return "inf";
  switch (spec.type) {
    case 0:
      if (spec.precision < 0) return float_repr(d);
      return fmt::format("{:.{}g}", d, std::max(precision, 1));
    case 'f':
    case 'F':
      return fmt::format("{:.{}f}", d, precision);
    case 'e':
      return fmt::format("{:.{}e}", d, precision);
    case 'E':
      return fmt::format("{:.{}E}", d, precision);
    case 'g':
      return fmt::format("{:.{}g}", d, std::max(precision, 1));
    case 'G':
      return fmt::format("{:.{}G}", d, std::max(precision, 1));
    case '%':
      return fmt::format("{:.{}f}%", d * 100, precision);
    default:
      raise(fmt::format("unknown format code '{}' for object of type 'float'", spec.type));
  }
}

std::string format_float(double d, const Spec& spec) {
  std::string digits = float_digits(std::fabs(d), spec);
  if (spec.comma) digits = with_commas(std::move(digits));
  return pad(std::move(digits), sign_of(std::signbit(d) && !std::isnan(d), spec.sign), spec, '>');
}

std::string cut(std::string s, int precision) {
  if (precision >= 0) s.resize(byte_offset(s, static_cast<size_t>(precision)));
  return s;
}

}  // namespace

std::string format_value(const Value& value, std::string_view text) {
  if (text.empty()) return to_str(value);
  const Spec spec = parse_spec(text);
  const bool float_type =
      spec.type != 0 && std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
  if (value.is(Type::kFloat) || (value.is_integral() && float_type)) {
    return format_float(value.as_double(), spec);
  }
  if (value.is_integral()) {
    if (value.is(Type::kBool) && spec.type == 0) return pad(to_str(value), "", spec, '<');
    return format_int(value.as_int(), spec);
  }
  if (!value.is_str()) {
    raise(
        fmt::format("unsupported format string passed to {}.__format__", type_name(value.type())));
  }
  if (spec.type != 0 && spec.type != 's') {
    raise(fmt::format("unknown format code '{}' for object of type 'str'", spec.type));
  }
  return pad(cut(std::string(value.str()), spec.precision), "", spec, '<');
}

// ---- "..." % values

namespace {

class Percent {
 public:
  Percent(Interp& interp, std::string_view format, const Value& args)
      : interp_(interp), format_(format), args_(args) {}

  std::string run() {
    std::string out;
    for (size_t i = 0; i < format_.size(); ++i) {
      if (format_[i] != '%') {
        out += format_[i];
        continue;
      }
      out += conversion(++i);
      interp_.check_size(out.size());
    }
    const bool tuple = args_.is(Type::kTuple);
    if (tuple ? used_ < args_.items().size() : used_ == 0 && !args_.is_dict() && !args_.is_list()) {
      raise("not all arguments converted during string formatting");
    }
    return out;
  }

 private:
  Value next_argument() {
    if (args_.is(Type::kTuple)) {
      if (used_ >= args_.items().size()) raise("not enough arguments for format string");
      return args_.items()[used_++];
    }
    if (used_++ > 0) raise("not enough arguments for format string");
    return args_;
  }

  // The conversion whose first character behind '%' is at `i`; leaves `i` on its last.
  std::string conversion(size_t& i) {
    Value value = Value::missing();
    if (i < format_.size() && format_[i] == '(') {
      const size_t close = format_.find(')', i);
      if (close == std::string_view::npos) raise("incomplete format key");
      if (!args_.is_dict()) raise("format requires a mapping");
      const auto key = format_.substr(i + 1, close - i - 1);
      const Value* found = args_.as<DictObj>()->find(key);
      if (found == nullptr) raise(fmt::format("'{}'", key));
      value = *found;
      i = close + 1;
      ++used_;
    }
    Spec spec;
    spec.align = '>';
    for (; i < format_.size(); ++i) {
      const char c = format_[i];
      if (c == '-') spec.align = '<';
      if (c == '0' && spec.align != '<') spec.align = '=', spec.fill = "0";
      if (c == '+' || c == ' ') spec.sign = c;
      if (c == '#') spec.alternate = true;
      if (std::string_view("-0+ #").find(c) == std::string_view::npos) break;
    }
    spec.width = read_number(format_, i);
    if (i < format_.size() && format_[i] == '.') spec.precision = read_number(format_, ++i);
    if (i >= format_.size()) raise("incomplete format");
    const char type = format_[i];
    if (type == '%') return "%";
    if (value.is_missing()) value = next_argument();
    return convert(type, value, spec);
  }

  std::string convert(char type, const Value& value, Spec& spec) {
    if (type == 's' || type == 'r' || type == 'a') {
      if (spec.align == '=') spec.align = '>', spec.fill = " ";
      return pad(cut(type == 's' ? to_str(value) : repr(value), spec.precision), "", spec, '>');
    }
    if (type == 'c' && value.is_str()) return pad(std::string(value.str()), "", spec, '>');
    if (std::string_view("diuxXoc").find(type) != std::string_view::npos) {
      if (!value.is_number()) {
        raise(
            fmt::format("%{} format: a number is required, not {}", type, type_name(value.type())));
      }
      spec.type = type == 'i' || type == 'u' ? 'd' : type;
      return format_int(
          value.is_integral() ? value.as_int() : static_cast<int64_t>(value.as_double()), spec);
    }
    if (std::string_view("eEfFgG").find(type) != std::string_view::npos) {
      if (!value.is_number()) {
        raise(fmt::format("must be real number, not {}", type_name(value.type())));
      }
      spec.type = type;
      return format_float(value.as_double(), spec);
    }
    raise(fmt::format("unsupported format character '{}'", type));
  }

  Interp& interp_;
  std::string_view format_;
  const Value& args_;
  size_t used_ = 0;
};

}  // namespace

Value percent_format(Interp& interp, std::string_view format, const Value& args) {
  return interp.make_string(Percent(interp, format, args).run());
}

// ---- "...".format(values)

namespace {

class Braces {
 public:
  Braces(Interp& interp, CallArgs& args) : interp_(interp), args_(args) {}

  std::string run(std::string_view format, int depth) {
    if (depth > 2) raise("max string recursion exceeded");
    std::string out;
    for (size_t i = 0; i < format.size(); ++i) {
      const char c = format[i];
      if ((c == '{' || c == '}') && i + 1 < format.size() && format[i + 1] == c) {
        out += c;
        ++i;
      } else if (c == '{') {
        const size_t end = closing(format, i + 1);
        out += field(format.substr(i + 1, end - i - 1), depth);
        interp_.check_size(out.size());
        i = end;
      } else if (c == '}') {
        raise("single '}' encountered in format string");
      } else {
        out += c;
      }
    }
    return out;
  }

 private:
  static size_t closing(std::string_view format, size_t i) {
    for (int open = 1; i < format.size(); ++i) {
      if (format[i] == '{') ++open;
      if (format[i] == '}' && --open == 0) return i;
    }
    raise("expected '}' before end of string");
  }

  std::string field(std::string_view text, int depth) {
    const size_t end = std::min(text.find_first_of("!:"), text.size());
    Value value = lookup(text.substr(0, end));
    std::string_view rest = text.substr(end);
    if (rest.starts_with('!')) {
      if (rest.size() < 2) raise("end of string while looking for conversion specifier");
      value = Value::string(rest[1] == 's' ? to_str(value) : repr(value));
      rest.remove_prefix(2);
    }
    if (!rest.empty() && rest[0] != ':') raise("expected ':' after conversion specifier");
    return format_value(value, rest.empty() ? "" : run(rest.substr(1), depth + 1));
  }

  Value lookup(std::string_view path) {
    const size_t end = std::min(path.find_first_of(".["), path.size());
    Value value = first(path.substr(0, end));
    path.remove_prefix(end);
    while (!path.empty()) {
      if (path[0] == '.') {
        const size_t stop = std::min(path.find_first_of(".[", 1), path.size());
        value = interp_.get_attribute(value, Value::string(std::string(path.substr(1, stop - 1))));
        path.remove_prefix(stop);
      } else {
        const size_t close = path.find(']');
        if (path[0] != '[' || close == std::string_view::npos)
          raise("missing ']' in format string");
        value = interp_.get_item(value, index(path.substr(1, close - 1)));
        path.remove_prefix(close + 1);
      }
    }
    return value;
  }

  static Value index(std::string_view text) {
    int64_t n = 0;
    const bool digits =
        !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
    if (digits && parse_int(text, 10, n)) return Value::integer(n);
    return Value::string(std::string(text));
  }

  Value first(std::string_view name) {
    const Value key = name.empty() ? Value::integer(static_cast<int64_t>(next_++)) : index(name);
    if (key.is_integral()) {
      if (static_cast<size_t>(key.as_int()) >= args_.positional.size()) {
        raise("replacement index out of range for positional args tuple");
      }
      return args_.positional[static_cast<size_t>(key.as_int())];
    }
    for (const auto& [k, v] : args_.named) {
      if (k.str() == name) return v;
    }
    raise(fmt::format("'{}'", name));
  }

  Interp& interp_;
  CallArgs& args_;
  size_t next_ = 0;
};

}  // namespace

Value brace_format(Interp& interp, std::string_view format, CallArgs& args) {
  return interp.make_string(Braces(interp, args).run(format, 0));
}

}  // namespace lorry::jinja
