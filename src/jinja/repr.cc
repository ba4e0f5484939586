// str() and repr().
#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "jinja/interp.h"
#include "jinja/unicode.h"
#include "jinja/value.h"

namespace lorry::jinja {

std::string float_repr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific);
  std::string_view text(buffer, static_cast<size_t>(end.ptr - buffer));
  std::string out;
  if (text.front() == '-') {
    out = "-";
    text.remove_prefix(1);
  }
  const size_t e = text.find('e');
  std::string digits(1, text[0]);
  if (e > 2) digits += text.substr(2, e - 2);
  const int exponent = std::stoi(std::string(text.substr(e + 1)));
  const int n = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (n > 1) out += "." + digits.substr(1);
    return out + fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0)
    return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (exponent + 1 >= n) {
    return out + digits + std::string(static_cast<size_t>(exponent + 1 - n), '0') + ".0";
  }
  const auto point = static_cast<size_t>(exponent + 1);
  return out + digits.substr(0, point) + "." + digits.substr(point);
}

namespace {

void append_str_repr(std::string_view s, std::string& out) {
  const bool has_single = s.find('\'') != std::string_view::npos;
  const char quote = has_single && s.find('"') == std::string_view::npos ? '"' : '\'';
  out += quote;
  for (size_t pos = 0; pos < s.size();) {
    const size_t run = plain_run(s, pos, quote);
    out.append(s, pos, run);
    pos += run;
    if (pos == s.size()) break;
    const char32_t c = next_code_point(s, pos);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      append_code_point(out, c);
    } else if (c < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
  }
  out += quote;
}

void append_items(const std::vector<Value>& items, std::string& out) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    append_repr(items[i], out);
  }
}

void append_dict(const DictObj& dict, std::string& out) {
  out += '{';
  bool first = true;
  for (const auto& [key, value] : dict.items) {
    if (!first) out += ", ";
    first = false;
    append_repr(key, out);
    out += ": ";
    append_repr(value, out);
  }
  out += '}';
}

void append_view(const Value& view, std::string& out) {
  static constexpr const char* kNames[] = {"dict_keys([", "dict_values([", "dict_items(["};
  out += kNames[view.as<ViewObj>()->kind];
  append_items(iterate(view).items(), out);
  out += "])";
}

void append_range(const ListObj& range, std::string& out) {
  out += fmt::format("range({}, {}", range.start, range.stop);
  if (range.step != 1) out += fmt::format(", {}", range.step);
  out += ')';
}

void append_macro(const MacroObj& macro, std::string& out) {
  out += "<Macro ";
  if (macro.def->name.is_str()) {
    append_str_repr(macro.def->name.str(), out);
  } else {
    out += "anonymous";
  }
  out += '>';
}

}  // namespace

void append_repr(const Value& v, std::string& out) {
  constexpr size_t kMaxRepr = size_t{64} << 20;
  if (out.size() > kMaxRepr) raise("a value is too long to print");
  switch (v.type()) {
    case Type::kMissing:
    case Type::kUndefined:
      out += "Undefined";
      return;
    case Type::kNone:
      out += "None";
      return;
    case Type::kBool:
      out += v.as_bool() ? "True" : "False";
      return;
    case Type::kInt:
      fmt::format_to(std::back_inserter(out), "{}", v.as_int());
      return;
    case Type::kFloat:
      out += float_repr(v.as_double());
      return;
    case Type::kStr:
      if (v.is_markup()) out += "Markup(";
      append_str_repr(v.str(), out);
      if (v.is_markup()) out += ')';
      return;
    case Type::kList:
      out += '[';
      append_items(v.items(), out);
      out += ']';
      return;
    case Type::kTuple:
      out += '(';
      append_items(v.items(), out);
      out += v.items().size() == 1 ? ",)" : ")";
      return;
    case Type::kDict:
      append_dict(*v.as<DictObj>(), out);
      return;
    case Type::kNamespace: {
      constexpr int kMaxNamespaces = 10;  // they may hold themselves
      if (++meter.namespaces > kMaxNamespaces) raise("namespaces hold each other too deeply");
      out += "<Namespace ";
      append_dict(v.as<NamespaceObj>()->attributes, out);
      out += '>';
      --meter.namespaces;
      return;
    }
    case Type::kRange:
      append_range(*v.as<ListObj>(), out);
      return;
    case Type::kView:
      append_view(v, out);
      return;
    case Type::kMacro:
      append_macro(*v.as<MacroObj>(), out);
      return;
    default:
      fmt::format_to(std::back_inserter(out), "<{} object>", type_name(v.type()));
      return;
  }
}

void append_str(const Value& v, std::string& out) {
  if (v.is_str()) {
    out += v.str();
  } else if (!v.is_undefined()) {
    append_repr(v, out);
  }
}

std::string to_str(const Value& value) {
  std::string out;
  append_str(value, out);
  return out;
}

std::string repr(const Value& value) {
  std::string out;
  append_repr(value, out);
  return out;
}

}  // namespace lorry::jinja
