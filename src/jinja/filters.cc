// Filters over text and single values; jinja_filters_seq.cc has those over sequences.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "base/html.h"
#include "jinja/filters.h"
#include "jinja/unicode.h"

namespace lorry::jinja {

namespace {

Value text_of(Interp& in, const Value& v) { return in.make_string(to_str(v)); }

Value method_on_text(Interp& in, const Value& v, StrMethodFn method, CallArgs& args) {
  if (v.is_str() && !v.is_markup()) return call_str_method(in, method, v, args);
  return call_str_method(in, method, Value::string(to_str(v)), args);
}

Value tojson(Interp& in, const Value& v, CallArgs& args) {
  Value ensure_ascii, indent, separators, sort_keys;
  args.bind("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"},
            {&ensure_ascii, &indent, &separators, &sort_keys});
  JsonStyle style;
  style.ensure_ascii = !ensure_ascii.is_missing() && truthy(ensure_ascii);
  style.sort_keys = !sort_keys.is_missing() && truthy(sort_keys);
  if (!indent.is_missing() && !indent.is_none()) {
    style.pretty = true;
    style.item_separator = ",";
    if (indent.is_str()) {
      style.indent = std::string(indent.str());
    } else if (indent.is_integral()) {
      style.indent =
          std::string(static_cast<size_t>(std::clamp<int64_t>(indent.as_int(), 0, 1000)), ' ');
      style.spaces = true;
    } else {
      raise("tojson: indent must be a number or a string");
    }
  }
  if (!separators.is_missing() && !separators.is_none()) {
    const Value both = in.elements(separators);
    if (both.items().size() != 2) raise("tojson: separators must be a pair");
    style.item_separator = to_str(both.items()[0]);
    style.key_separator = to_str(both.items()[1]);
  }
  std::string out;
  append_json(v, style, 0, out);
  return in.make_string(std::move(out));
}

Value default_(Interp&, const Value& v, CallArgs& args) {
  Value fallback, boolean;
  args.bind("default", {"default_value", "boolean"}, {&fallback, &boolean});
  const bool falsy_too = !boolean.is_missing() && truthy(boolean);
  if (!v.is_undefined() && !(falsy_too && !truthy(v))) return v;
  return fallback.is_missing() ? Value::string("") : fallback;
}

Value replace(Interp& in, const Value& v, CallArgs& args) {
  Value from, to, count;
  args.bind("replace", {"old", "new", "count"}, {&from, &to, &count});
  if (from.is_missing() || to.is_missing()) raise("replace() needs what to replace and with what");
  CallArgs inner;
  inner.positional = {text_of(in, from), text_of(in, to)};
  if (!count.is_missing() && !count.is_none()) inner.positional.push_back(count);
  static const StrMethodFn kMethod = find_str_method("replace");
  return method_on_text(in, v, kMethod, inner);
}

Value title_filter(Interp& in, const Value& v, CallArgs&) {
  in.charge_characters(v);
  const std::string s = to_str(v);
  static constexpr std::string_view kBetween = "-({[<";
  std::string out, word;
  const auto flush = [&] {
    if (word.empty()) return;
    size_t behind = 0;
    next_code_point(word, behind);
    out += to_upper(word.substr(0, behind)) + to_lower(word.substr(behind));
    word.clear();
  };
  for (size_t pos = 0; pos < s.size();) {
    const size_t at = pos;
    const char32_t c = next_code_point(s, pos);
    const bool between =
        is_space(c) || (c < 0x80 && kBetween.find(static_cast<char>(c)) != std::string_view::npos);
    if (!between) {
      word += s.substr(at, pos - at);
      continue;
    }
    flush();
    out += s.substr(at, pos - at);
  }
  flush();
  return in.make_string(std::move(out));
}

Value indent(Interp& in, const Value& v, CallArgs& args) {
  Value width, first, blank;
  args.bind("indent", {"width", "first", "blank"}, {&width, &first, &blank});
  require_defined(v);
  if (!v.is_str()) raise(fmt::format("can only indent str, not {}", type_name(v.type())));
  std::string space(4, ' ');
  if (width.is_str()) space = std::string(width.str());
  if (width.is_integral()) {
    space.assign(static_cast<size_t>(std::clamp<int64_t>(width.as_int(), 0, 1 << 16)), ' ');
  }
  const bool blank_too = !blank.is_missing() && truthy(blank);
  CallArgs none;
  const Value lines =
      str_method(in, Value::string(std::string(v.str()) + "\n"), "splitlines", none);
  std::string out = !first.is_missing() && truthy(first) ? space : "";
  for (size_t i = 0; i < lines.items().size(); ++i) {
    const std::string_view line = lines.items()[i].str();
    if (i > 0) {
      out += '\n';
      if (blank_too || !line.empty()) out += space;
    }
    out += line;
    in.check_size(out.size());
  }
  return in.make_string(std::move(out));
}

Value int_(Interp&, const Value& v, CallArgs& args) {
  Value fallback, base;
  args.bind("int", {"default", "base"}, {&fallback, &base});
  require_defined(v);
  const Value otherwise = fallback.is_missing() ? Value::integer(0) : fallback;
  if (v.is_integral()) return Value::integer(v.as_int());
  double d = 0;
  if (v.is_str()) {
    int64_t n = 0;
    if (parse_int(v.str(), base.is_integral() ? static_cast<int>(base.as_int()) : 10, n)) {
      return Value::integer(n);
    }
    if (!parse_float(v.str(), d)) return otherwise;
  } else if (v.is(Type::kFloat)) {
    d = v.as_double();
  } else {
    return otherwise;
  }
  if (!std::isfinite(d)) return otherwise;
  if (std::fabs(d) >= 9.2e18) raise("an integer is too large");
  return Value::integer(static_cast<int64_t>(d));
}

Value float_(Interp&, const Value& v, CallArgs& args) {
  Value fallback;
  args.bind("float", {"default"}, {&fallback});
  require_defined(v);
  double d = 0;
  if (v.is_number()) return Value::real(v.as_double());
  if (v.is_str() && parse_float(v.str(), d)) return Value::real(d);
  return fallback.is_missing() ? Value::real(0) : fallback;
}

Value abs_(Interp&, const Value& v, CallArgs&) {
  require_defined(v);
  if (!v.is_number()) raise(fmt::format("bad operand type for abs(): '{}'", type_name(v.type())));
  if (v.is_integral()) return Value::integer(v.as_int() < 0 ? -v.as_int() : v.as_int());
  return Value::real(std::fabs(v.as_double()));
}

Value round_(Interp&, const Value& v, CallArgs& args) {
  Value precision_value, method_value;
  args.bind("round", {"precision", "method"}, {&precision_value, &method_value});
  require_defined(v);
  if (!v.is_number())
    raise(fmt::format("type {} doesn't define __round__ method", type_name(v.type())));
  const int64_t precision = precision_value.is_integral() ? precision_value.as_int() : 0;
  const std::string method = method_value.is_missing() ? "common" : to_str(method_value);
  if (method != "common" && method != "ceil" && method != "floor") {
    raise("method must be common, ceil or floor");
  }
  const double d = v.as_double();
  if (method != "common") {
    const double scale = std::pow(10.0, static_cast<double>(precision));
    return Value::real((method == "ceil" ? std::ceil(d * scale) : std::floor(d * scale)) / scale);
  }
  if (v.is_integral() && precision >= 0) return Value::integer(v.as_int());
  if (!std::isfinite(d) || precision > 300) return v;
  if (precision < 0) {
    const double scale = std::pow(10.0, static_cast<double>(-precision));
    const double rounded = std::nearbyint(d / scale) * scale;
    return v.is_integral() ? Value::integer(static_cast<int64_t>(rounded)) : Value::real(rounded);
  }
  return Value::real(std::strtod(fmt::format("{:.{}f}", d, precision).c_str(), nullptr));
}

Value format_(Interp& in, const Value& v, CallArgs& args) {
  if (!args.positional.empty() && !args.named.empty()) {
    raise("can't handle positional and keyword arguments at the same time");
  }
  Value values;
  if (args.named.empty()) {
    values = Value::tuple(args.positional);
  } else {
    auto* dict = new DictObj;
    values = Value::object(Type::kDict, dict);
    for (const auto& [k, item] : args.named) dict->set(k, item);
  }
  return percent_format(in, to_str(v), values);
}

Value wordcount(Interp& in, const Value& v, CallArgs&) {
  in.charge_characters(v);
  const std::string s = to_str(v);
  int64_t n = 0;
  bool inside = false;
  for (size_t pos = 0; pos < s.size();) {
    const char32_t c = next_code_point(s, pos);
    const bool word = is_alpha(c) || is_digit(c) || c == '_';
    n += word && !inside;
    inside = word;
  }
  return Value::integer(n);
}

Value truncate(Interp& in, const Value& v, CallArgs& args) {
  Value length_value, kill, end_value, leeway_value;
  args.bind("truncate", {"length", "killwords", "end", "leeway"},
            {&length_value, &kill, &end_value, &leeway_value});
  const int64_t length = length_value.is_integral() ? length_value.as_int() : 255;
  const std::string end = end_value.is_missing() ? "..." : to_str(end_value);
  const int64_t leeway = leeway_value.is_integral() ? leeway_value.as_int() : 5;
  const auto end_size = static_cast<int64_t>(code_point_count(end));
  if (length < end_size) raise("truncate: the length is less than that of the end");
  const int64_t size = in.length(v);  // below 0: it has none
  if (size >= 0 && size <= length + leeway) return v;
  if (!v.is_str()) raise(fmt::format("can only truncate str, not {}", type_name(v.type())));
  const std::string_view s = v.str();
  std::string_view kept = s.substr(0, byte_offset(s, static_cast<size_t>(length - end_size)));
  const bool whole = !kill.is_missing() && truthy(kill);
  if (const size_t space = kept.rfind(' '); !whole && space != std::string_view::npos) {
    kept = kept.substr(0, space);
  }
  return in.make_string(std::string(kept) + end);
}

std::string quoted(std::string_view s, bool query) {
  std::string out;
  for (const char c : s) {
    const auto byte = static_cast<uint8_t>(c);
    const bool plain = byte < 0x80 && (std::isalnum(byte) != 0 ||
                                       std::string_view("_.-~").find(c) != std::string_view::npos);
    if (plain || (c == '/' && !query)) {
      out += c;
    } else if (c == ' ' && query) {
      out += '+';
    } else {
      out += fmt::format("%{:02X}", byte);
    }
  }
  return out;
}

Value urlencode(Interp& in, const Value& v, CallArgs&) {
  in.charge_characters(v);
  if (v.is_str() || !is_iterable(v)) return in.make_string(quoted(to_str(v), false));
  Value pairs = v;
  CallArgs none;
  if (v.is_dict()) pairs = in.call_method(v, "items", none);
  std::string out;
  const Value all = in.elements(pairs);
  for (const Value& pair : all.items()) {
    const Value both = in.elements(pair);
    if (both.items().size() != 2) raise("urlencode needs pairs");
    if (!out.empty()) out += '&';
    out += quoted(to_str(both.items()[0]), true) + "=" + quoted(to_str(both.items()[1]), true);
  }
  return in.make_string(std::move(out));
}

Value attr(Interp& in, const Value& v, CallArgs& args) {
  Value name;
  args.bind("attr", {"name"}, {&name});
  require_defined(v);
  if (!name.is_str()) raise("attr() needs a name");
  if (v.is_dict() && !has_method(Type::kDict, name.str()))
    return Value::undefined(name, Type::kDict);
  return in.get_attribute(v, name);
}

template <std::string (*F)(std::string_view)>
Value mapped(Interp& in, const Value& v, CallArgs&) {
  in.charge_characters(v);
  return in.make_string(F(to_str(v)));
}

Value trim(Interp& in, const Value& v, CallArgs& args) {
  static const StrMethodFn kMethod = find_str_method("strip");
  if (args.empty()) return method_on_text(in, v, kMethod, args);
  Value chars;
  args.bind("trim", {"chars"}, {&chars});
  CallArgs inner;
  if (!chars.is_missing()) inner.positional.push_back(chars);
  return method_on_text(in, v, kMethod, inner);
}

Value center(Interp& in, const Value& v, CallArgs& args) {
  Value width;
  args.bind("center", {"width"}, {&width});
  CallArgs inner;
  inner.positional.push_back(width.is_missing() ? Value::integer(80) : width);
  static const StrMethodFn kMethod = find_str_method("center");
  return method_on_text(in, v, kMethod, inner);
}

Value length(Interp& in, const Value& v, CallArgs&) {
  const int64_t n = v.is(Type::kLoop) ? length_of(v.as<LoopObj>()->items) : in.length(v);
  if (n < 0) raise(fmt::format("object of type '{}' has no len()", type_name(v.type())));
  return Value::integer(n);
}

}  // namespace

const FilterTable& text_filters() {
  static const FilterFn kEscape = [](Interp& in, const Value& v, CallArgs&) {
    return v.is_markup() ? v : in.make_markup(escape_html(to_str(v)));
  };
  static const FilterTable kFilters = {
      {"tojson", tojson},
      {"default", default_},
      {"d", default_},
      {"replace", replace},
      {"title", title_filter},
      {"indent", indent},
      {"int", int_},
      {"float", float_},
      {"abs", abs_},
      {"round", round_},
      {"format", format_},
      {"wordcount", wordcount},
      {"truncate", truncate},
      {"urlencode", urlencode},
      {"attr", attr},
      {"upper", mapped<to_upper>},
      {"lower", mapped<to_lower>},
      {"capitalize", mapped<capitalize>},
      {"trim", trim},
      {"center", center},
      {"length", length},
      {"count", length},
      {"string",
       [](Interp& in, const Value& v, CallArgs&) { return v.is_str() ? v : text_of(in, v); }},
      {"safe", [](Interp& in, const Value& v, CallArgs&) { return in.make_markup(to_str(v)); }},
      {"escape", kEscape},
      {"e", kEscape},
      {"forceescape", [](Interp& in, const Value& v,
                         CallArgs&) { return in.make_markup(escape_html(to_str(v))); }},
  };
  return kFilters;
}

FilterFn find_filter(std::string_view name) {
  for (const FilterTable* table : {&text_filters(), &sequence_filters()}) {
    if (const auto it = table->find(name); it != table->end()) return it->second;
  }
  return nullptr;
}

}  // namespace lorry::jinja
