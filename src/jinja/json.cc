// json.dumps, as `tojson` needs it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "jinja/interp.h"
#include "jinja/unicode.h"

namespace lorry::jinja {

namespace {

constexpr size_t kMaxJson = size_t{64} << 20;

void append_json_escape(char32_t c, std::string& out) {
  static constexpr std::string_view kLetters = "\"\\\n\r\t\f\b";
  static constexpr std::string_view kEscapes = "\"\\nrtfb";
  const size_t known = c < 0x80 ? kLetters.find(static_cast<char>(c)) : std::string_view::npos;
  if (known != std::string_view::npos) {
    out += '\\';
    out += kEscapes[known];
  } else if (c < 0x10000) {
    fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<uint32_t>(c));
  } else {
    const uint32_t v = static_cast<uint32_t>(c) - 0x10000;
    fmt::format_to(std::back_inserter(out), "\\u{:04x}\\u{:04x}", 0xD800 + (v >> 10),
                   0xDC00 + (v & 0x3FF));
  }
}

void append_json_string(std::string_view s, bool ensure_ascii, std::string& out) {
  out += '"';
  for (size_t pos = 0; pos < s.size();) {
    const size_t run = plain_run(s, pos, '"', !ensure_ascii);
    out.append(s.data() + pos, run);
    pos += run;
    if (pos < s.size()) append_json_escape(next_code_point(s, pos), out);
  }
  out += '"';
}

std::string json_float(double d) {
  if (std::isnan(d)) return "NaN";
  if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
  return float_repr(d);
}

// A key that is no str.
std::string json_key(const Value& key) {
  switch (key.type()) {
    case Type::kNone:
      return "null";
    case Type::kBool:
      return key.as_bool() ? "true" : "false";
    case Type::kInt:
      return fmt::format("{}", key.as_int());
    case Type::kFloat:
      return json_float(key.as_double());
    default:
      raise(
          fmt::format("keys must be str, int, float, bool or None, not {}", type_name(key.type())));
  }
}

void new_line(const JsonStyle& style, int level, std::string& out) {
  const size_t indent = style.indent.size() * static_cast<size_t>(level);
  if (out.size() + indent > kMaxJson) raise("a value is too long to print");
  out += '\n';
  if (style.spaces) {
    out.append(indent, ' ');
  } else {
    for (int i = 0; i < level; ++i) out += style.indent;
  }
}

void append_json_list(const Value& value, const JsonStyle& style, int level, std::string& out) {
  const auto& items = value.items();
  if (items.empty()) {
    out += "[]";
    return;
  }
  out += '[';
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += style.item_separator;
    if (style.pretty) new_line(style, level + 1, out);
    append_json(items[i], style, level + 1, out);
  }
  if (style.pretty) new_line(style, level, out);
  out += ']';
}

std::vector<const std::pair<Value, Value>*> sorted_items(const DictObj& dict) {
  std::vector<const std::pair<Value, Value>*> order;
  for (const auto& item : dict.items) order.push_back(&item);
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return compare(a->first, b->first, "<") == -1;
  });
  return order;
}

void append_json_dict(const DictObj& dict, const JsonStyle& style, int level, std::string& out) {
  if (dict.items.empty()) {
    out += "{}";
    return;
  }
  out += '{';
  bool first = true;
  const auto append = [&](const std::pair<Value, Value>& item) {
    if (!first) out += style.item_separator;
    first = false;
    if (style.pretty) new_line(style, level + 1, out);
    if (item.first.is_str()) {
      append_json_string(item.first.str(), style.ensure_ascii, out);
    } else {
      append_json_string(json_key(item.first), style.ensure_ascii, out);
    }
    out += style.key_separator;
    append_json(item.second, style, level + 1, out);
  };
  if (style.sort_keys) {
    for (const auto* item : sorted_items(dict)) append(*item);
  } else {
    for (const auto& item : dict.items) append(item);
  }
  if (style.pretty) new_line(style, level, out);
  out += '}';
}

}  // namespace

void append_json(const Value& v, const JsonStyle& style, int level, std::string& out) {
  if (out.size() > kMaxJson) raise("a value is too long to print");
  switch (v.type()) {
    case Type::kNone:
      out += "null";
      return;
    case Type::kBool:
      out += v.as_bool() ? "true" : "false";
      return;
    case Type::kInt:
      fmt::format_to(std::back_inserter(out), "{}", v.as_int());
      return;
    case Type::kFloat:
      out += json_float(v.as_double());
      return;
    case Type::kStr:
      append_json_string(v.str(), style.ensure_ascii, out);
      return;
    case Type::kList:
    case Type::kTuple:
      append_json_list(v, style, level, out);
      return;
    case Type::kDict:
      append_json_dict(*v.as<DictObj>(), style, level, out);
      return;
    default:
      raise(fmt::format("Object of type {} is not JSON serializable{}", type_name(v.type()),
                        v.is_undefined() ? " (" + undefined_text(v) + ")" : ""));
  }
}

}  // namespace lorry::jinja
