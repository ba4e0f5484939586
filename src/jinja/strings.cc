// The methods of str.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "jinja/interp.h"
#include "jinja/unicode.h"

namespace lorry::jinja {

namespace {

std::string_view need_str(const Value& v, const char* what) {
  require_defined(v);
  if (!v.is_str()) raise(fmt::format("{} must be str, not {}", what, type_name(v.type())));
  return v.str();
}

int64_t need_int(const Value& v, int64_t fallback) {
  if (v.is_missing() || v.is_none()) return fallback;
  require_defined(v);
  if (!v.is_integral()) {
    raise(fmt::format("'{}' object cannot be interpreted as an integer", type_name(v.type())));
  }
  return v.as_int();
}

// rfind, whose time grows with both sizes.
size_t find_last(Interp& in, std::string_view s, std::string_view sub) {
  if (sub.size() > 64 && sub.size() <= s.size()) {
    const double work =
        static_cast<double>(s.size() - sub.size()) * static_cast<double>(sub.size());
    in.charge(static_cast<int64_t>(work / 4096));
  }
  return s.rfind(sub);
}

// A part of `self`: itself, which takes no memory, where that is all of it.
Value part_of(Interp& in, const Value& self, std::string_view part) {
  if (part.size() < self.str().size()) {
    std::string copy(part);
    return self.is_markup() ? in.make_markup(std::move(copy)) : in.make_string(std::move(copy));
  }
  in.charge(static_cast<int64_t>(part.size() / 64));
  return self;
}

Value strip_method(Interp& in, const Value& self, CallArgs& args, const char* name, bool left,
                   bool right) {
  Value chars;
  args.bind(name, {"chars"}, {&chars});
  if (chars.is_missing() || chars.is_none()) {
    return part_of(in, self, strip(self.str(), nullptr, left, right));
  }
  const std::string_view set = need_str(chars, "strip arg");
  return part_of(in, self, strip(self.str(), &set, left, right));
}

void add_piece(Interp& in, std::vector<Value>& out, const Value& self, std::string_view piece) {
  out.push_back(part_of(in, self, piece));
  in.charge(1);
}

Value split_spaces(Interp& in, const Value& self, int64_t limit, bool from_right) {
  std::string_view s = self.str();
  std::vector<Value> out;
  while (true) {
    s = strip(s, nullptr, !from_right, from_right);
    if (s.empty()) break;
    if (limit >= 0 && static_cast<int64_t>(out.size()) == limit) {
      add_piece(in, out, self, s);
      break;
    }
    size_t begin = 0, end = s.size();
    if (from_right) {
      in.charge(static_cast<int64_t>(s.size() / 4));
      for (size_t pos = 0; pos < s.size();) {
        if (is_space(next_code_point(s, pos))) begin = pos;
      }
      add_piece(in, out, self, s.substr(begin));
      s = s.substr(0, begin);
      continue;
    }
    for (size_t pos = 0; pos < s.size();) {
      const size_t at = pos;
      if (!is_space(next_code_point(s, pos))) continue;
      end = at;
      break;
    }
    add_piece(in, out, self, s.substr(0, end));
    s = s.substr(end);
  }
  if (from_right) std::reverse(out.begin(), out.end());
  return Value::list(std::move(out));
}

Value split_method(Interp& in, const Value& self, CallArgs& args, bool from_right) {
  Value sep_value, max_value;
  args.bind(from_right ? "rsplit" : "split", {"sep", "maxsplit"}, {&sep_value, &max_value});
  const int64_t limit = need_int(max_value, -1);
  std::string_view s = self.str();
  if (sep_value.is_missing() || sep_value.is_none())
    return split_spaces(in, self, limit, from_right);
  const std::string_view sep = need_str(sep_value, "sep");
  if (sep.empty()) raise("empty separator");
  std::vector<Value> out;
  while (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
    const size_t at = from_right ? find_last(in, s, sep) : find_text(s, sep);
    if (at == std::string_view::npos) break;
    add_piece(in, out, self, from_right ? s.substr(at + sep.size()) : s.substr(0, at));
    s = from_right ? s.substr(0, at) : s.substr(at + sep.size());
  }
  add_piece(in, out, self, s);
  if (from_right) std::reverse(out.begin(), out.end());
  return Value::list(std::move(out));
}

Value splitlines(Interp& in, const Value& self, CallArgs& args) {
  Value keep;
  args.bind("splitlines", {"keepends"}, {&keep});
  const bool keepends = !keep.is_missing() && truthy(keep);
  const std::string_view s = self.str();
  std::vector<Value> out;
  size_t begin = 0;
  for (size_t pos = 0; pos < s.size();) {
    const size_t at = pos;
    const char32_t c = next_code_point(s, pos);
    if (!is_line_end(c)) continue;
    if (c == '\r' && pos < s.size() && s[pos] == '\n') ++pos;
    add_piece(in, out, self, s.substr(begin, (keepends ? pos : at) - begin));
    begin = pos;
  }
  if (begin < s.size()) add_piece(in, out, self, s.substr(begin));
  return Value::list(std::move(out));
}

// The part of the string that start and end (code points) choose; false if start is behind it.
bool window(Interp& in, const Value& self, const Value& start, const Value& end,
            std::string_view& s, int64_t& offset) {
  offset = 0;
  s = self.str();
  if (start.is_missing() && end.is_missing()) return true;
  const int64_t n = in.length(self);
  const auto place = [&](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + n : i, 0, n); };
  const int64_t raw = need_int(start, 0);
  const int64_t from = place(raw);
  const int64_t to = place(need_int(end, n));
  offset = from;
  if (raw > n || from > to) return false;
  const size_t b = byte_offset(self.str(), static_cast<size_t>(from));
  s = self.str().substr(b);
  s = s.substr(0, byte_offset(s, static_cast<size_t>(to - from)));
  return true;
}

Value affix(Interp& in, const Value& self, CallArgs& args, bool prefix) {
  const char* name = prefix ? "startswith" : "endswith";
  Value what, start, end;
  args.bind(name, {"prefix", "start", "end"}, {&what, &start, &end});
  std::string_view s;
  int64_t offset = 0;
  const bool inside = window(in, self, start, end, s, offset);
  const auto matches = [&](const Value& v) {
    if (!v.is_str()) {
      raise(fmt::format("{} first arg must be str or a tuple of str, not {}", name,
                        type_name(v.type())));
    }
    return inside && (prefix ? s.starts_with(v.str()) : s.ends_with(v.str()));
  };
  if (what.is_missing()) raise(fmt::format("{}() takes at least 1 argument (0 given)", name));
  if (!what.is(Type::kTuple)) return Value::boolean(matches(what));
  const auto& all = what.items();
  return Value::boolean(std::any_of(all.begin(), all.end(), matches));
}

Value find_method(Interp& in, const Value& self, CallArgs& args, const char* name, bool last,
                  bool must) {
  Value what, start, end;
  args.bind(name, {"sub", "start", "end"}, {&what, &start, &end});
  const std::string_view sub = need_str(what, "argument");
  std::string_view s;
  int64_t offset = 0;
  in.charge(static_cast<int64_t>(self.str().size() / 64));
  size_t at = std::string_view::npos;
  if (window(in, self, start, end, s, offset))
    at = last ? find_last(in, s, sub) : find_text(s, sub);
  if (at != std::string_view::npos) {
    return Value::integer(offset + static_cast<int64_t>(code_point_count(s.substr(0, at))));
  }
  if (must) raise("substring not found");
  return Value::integer(-1);
}

Value count(Interp& in, const Value& self, CallArgs& args) {
  Value what, start, end;
  args.bind("count", {"sub", "start", "end"}, {&what, &start, &end});
  const std::string_view sub = need_str(what, "argument");
  std::string_view s;
  int64_t offset = 0;
  if (!window(in, self, start, end, s, offset)) return Value::integer(0);
  if (sub.empty()) return Value::integer(static_cast<int64_t>(code_point_count(s)) + 1);
  int64_t n = 0;
  for (size_t at = find_text(s, sub); at != std::string_view::npos;
       at = find_text(s, sub, at + sub.size()))
    ++n;
  return Value::integer(n);
}

Value replace(Interp& in, const Value& self, CallArgs& args) {
  Value old_value, new_value, count_value;
  args.bind("replace", {"old", "new", "count"}, {&old_value, &new_value, &count_value});
  const std::string_view from = need_str(old_value, "replace() argument 1");
  const std::string_view to = need_str(new_value, "replace() argument 2");
  int64_t left = need_int(count_value, -1);
  const std::string_view s = self.str();
  std::string out;
  size_t pos = 0;
  if (from.empty()) {
    while (left != 0) {
      out += to;
      --left;
      if (pos >= s.size()) break;
      const size_t at = pos;
      next_code_point(s, pos);
      out += s.substr(at, pos - at);
      in.check_size(out.size());
    }
    if (pos < s.size()) out += s.substr(pos);
    return in.make_string(std::move(out));
  }
  size_t at = find_text(s, from);
  if (at == std::string_view::npos || left == 0) return part_of(in, self, s);
  for (; at != std::string_view::npos && left != 0; at = find_text(s, from, pos)) {
    out += s.substr(pos, at - pos);
    out += to;
    pos = at + from.size();
    --left;
    in.check_size(out.size());
  }
  out += s.substr(pos);
  return in.make_string(std::move(out));
}

Value join(Interp& in, const Value& self, CallArgs& args) {
  Value iterable;
  args.bind("join", {"iterable"}, {&iterable});
  if (iterable.is_missing()) raise("join() takes exactly one argument (0 given)");
  const Value items = in.elements(iterable);
  std::string out;
  for (size_t i = 0; i < items.items().size(); ++i) {
    const Value& item = items.items()[i];
    if (!item.is_str()) {
      raise(fmt::format("sequence item {}: expected str instance, {} found", i,
                        type_name(item.type())));
    }
    if (i > 0) out += self.str();
    out += item.str();
    in.check_size(out.size());
  }
  return in.make_string(std::move(out));
}

template <typename Predicate>
Value all_of(const Value& self, Predicate holds) {
  const std::string_view s = self.str();
  for (size_t pos = 0; pos < s.size();) {
    if (!holds(next_code_point(s, pos))) return Value::boolean(false);
  }
  return Value::boolean(!s.empty());
}

// islower / isupper: at least one cased letter, and none of the other case.
Value cased(const Value& self, bool upper) {
  const std::string_view s = self.str();
  bool any = false;
  for (size_t pos = 0; pos < s.size();) {
    const char32_t c = next_code_point(s, pos);
    if (upper ? is_lower(c) : is_upper(c)) return Value::boolean(false);
    any |= upper ? is_upper(c) : is_lower(c);
  }
  return Value::boolean(any);
}

Value pad_method(Interp& in, const Value& self, CallArgs& args, char align) {
  Value width_value, fill_value;
  args.bind("justify", {"width", "fillchar"}, {&width_value, &fill_value});
  const std::string fill(fill_value.is_missing() ? " "
                                                 : need_str(fill_value, "the fill character"));
  if (code_point_count(fill) != 1) raise("the fill character must be exactly one character long");
  const int64_t gap = need_int(width_value, 0) - in.length(self);
  if (gap <= 0) return self;
  in.check_size(static_cast<size_t>(gap) * fill.size());
  // str.center puts the odd one to the left when the width is odd.
  const int64_t width = need_int(width_value, 0);
  const int64_t left = align == '<' ? 0 : align == '>' ? gap : gap / 2 + (gap & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += self.str();
  for (int64_t i = left; i < gap; ++i) out += fill;
  return in.make_string(std::move(out));
}

Value zfill(Interp& in, const Value& self, CallArgs& args) {
  Value width;
  args.bind("zfill", {"width"}, {&width});
  const int64_t gap = need_int(width, 0) - in.length(self);
  if (gap <= 0) return self;
  in.check_size(static_cast<size_t>(gap));
  std::string out(self.str());
  const bool sign = !out.empty() && (out[0] == '-' || out[0] == '+');
  out.insert(sign ? 1 : 0, static_cast<size_t>(gap), '0');
  return in.make_string(std::move(out));
}

Value partition(Interp& in, const Value& self, CallArgs& args, bool last) {
  Value sep_value;
  args.bind("partition", {"sep"}, {&sep_value});
  const std::string_view sep = need_str(sep_value, "must be str");
  if (sep.empty()) raise("empty separator");
  const std::string_view s = self.str();
  const size_t at = last ? find_last(in, s, sep) : find_text(s, sep);
  const auto part = [&](size_t from, size_t size) {
    return part_of(in, self, s.substr(from, size));
  };
  if (at == std::string_view::npos) {
    if (last) return Value::tuple({part(0, 0), part(0, 0), self});
    return Value::tuple({self, part(0, 0), part(0, 0)});
  }
  return Value::tuple({part(0, at), part(at, sep.size()), part(at + sep.size(), s.size())});
}

Value remove_affix(Interp& in, const Value& self, CallArgs& args, bool prefix) {
  Value what;
  args.bind(prefix ? "removeprefix" : "removesuffix", {"affix"}, {&what});
  const std::string_view affix = need_str(what, "argument");
  std::string_view s = self.str();
  if (prefix && s.starts_with(affix)) s.remove_prefix(affix.size());
  if (!prefix && s.ends_with(affix)) s.remove_suffix(affix.size());
  return part_of(in, self, s);
}

Value expandtabs(Interp& in, const Value& self, CallArgs& args) {
  Value size_value;
  args.bind("expandtabs", {"tabsize"}, {&size_value});
  const int64_t size = std::min<int64_t>(need_int(size_value, 8), 1 << 16);
  const std::string_view s = self.str();
  std::string out;
  int64_t column = 0;
  for (size_t pos = 0; pos < s.size();) {
    const size_t at = pos;
    const char32_t c = next_code_point(s, pos);
    if (c == '\t') {
      const int64_t gap = size > 0 ? size - column % size : 0;
      out.append(static_cast<size_t>(gap), ' ');
      column += gap;
    } else {
      out += s.substr(at, pos - at);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
    in.check_size(out.size());
  }
  return in.make_string(std::move(out));
}

Value format_map(Interp& in, const Value& self, CallArgs& args) {
  Value map;
  args.bind("format_map", {"mapping"}, {&map});
  if (!map.is_dict()) raise("format_map() needs a mapping");
  CallArgs named;
  for (const auto& [k, v] : map.as<DictObj>()->items) {
    if (k.is_str()) named.named.emplace_back(k, v);
  }
  return brace_format(in, self.str(), named);
}

/// Lowercase, but for the sharp s.
std::string fold_case(std::string_view text) {
  std::string out = to_lower(text);
  for (size_t at = 0; (at = out.find("\u00df", at)) != out.npos; at += 2) out.replace(at, 2, "ss");
  return out;
}

template <std::string (*F)(std::string_view)>
Value mapped(Interp& in, const Value& self, CallArgs& args) {
  in.charge_characters(self);
  args.bind("method", {}, {});
  return in.make_string(F(self.str()));
}

#define LORRY_STR_METHOD(expr)                                 \
  [](Interp& in, const Value& self, CallArgs& args) -> Value { \
    (void)in;                                                  \
    return expr;                                               \
  }

const std::map<std::string_view, StrMethodFn>& methods() {
  static const std::map<std::string_view, StrMethodFn> kMethods = {
      {"strip", LORRY_STR_METHOD(strip_method(in, self, args, "strip", true, true))},
      {"lstrip", LORRY_STR_METHOD(strip_method(in, self, args, "lstrip", true, false))},
      {"rstrip", LORRY_STR_METHOD(strip_method(in, self, args, "rstrip", false, true))},
      {"split", LORRY_STR_METHOD(split_method(in, self, args, false))},
      {"rsplit", LORRY_STR_METHOD(split_method(in, self, args, true))},
      {"splitlines", splitlines},
      {"startswith", LORRY_STR_METHOD(affix(in, self, args, true))},
      {"endswith", LORRY_STR_METHOD(affix(in, self, args, false))},
      {"find", LORRY_STR_METHOD(find_method(in, self, args, "find", false, false))},
      {"rfind", LORRY_STR_METHOD(find_method(in, self, args, "rfind", true, false))},
      {"index", LORRY_STR_METHOD(find_method(in, self, args, "index", false, true))},
      {"rindex", LORRY_STR_METHOD(find_method(in, self, args, "rindex", true, true))},
      {"count", count},
      {"replace", replace},
      {"join", join},
      {"format", LORRY_STR_METHOD(brace_format(in, self.str(), args))},
      {"format_map", format_map},
      {"upper", mapped<to_upper>},
      {"lower", mapped<to_lower>},
      {"casefold", mapped<fold_case>},
      {"title", mapped<title>},
      {"capitalize", mapped<capitalize>},
      {"swapcase", mapped<swapcase>},
      {"isspace", LORRY_STR_METHOD((args.bind("isspace", {}, {}), all_of(self, is_space)))},
      {"isdigit", LORRY_STR_METHOD(all_of(self, is_digit))},
      {"isdecimal", LORRY_STR_METHOD(all_of(self, is_digit))},
      {"isnumeric", LORRY_STR_METHOD(all_of(self, is_digit))},
      {"isalpha", LORRY_STR_METHOD(all_of(self, is_alpha))},
      {"isalnum",
       LORRY_STR_METHOD(all_of(self, [](char32_t c) { return is_alpha(c) || is_digit(c); }))},
      {"isascii", LORRY_STR_METHOD(Value::boolean(is_ascii(self.str())))},
      {"isprintable", LORRY_STR_METHOD(Value::boolean(self.str().empty() ||
                                                      all_of(self, is_printable).as_bool()))},
      {"isupper", LORRY_STR_METHOD(cased(self, true))},
      {"islower", LORRY_STR_METHOD(cased(self, false))},
      {"istitle", LORRY_STR_METHOD(Value::boolean(to_upper(self.str()) != to_lower(self.str()) &&
                                                  title(self.str()) == self.str()))},
      {"ljust", LORRY_STR_METHOD(pad_method(in, self, args, '<'))},
      {"rjust", LORRY_STR_METHOD(pad_method(in, self, args, '>'))},
      {"center", LORRY_STR_METHOD(pad_method(in, self, args, '^'))},
      {"zfill", zfill},
      {"partition", LORRY_STR_METHOD(partition(in, self, args, false))},
      {"rpartition", LORRY_STR_METHOD(partition(in, self, args, true))},
      {"removeprefix", LORRY_STR_METHOD(remove_affix(in, self, args, true))},
      {"removesuffix", LORRY_STR_METHOD(remove_affix(in, self, args, false))},
      {"expandtabs", expandtabs},
  };
  return kMethods;
}

#undef LORRY_STR_METHOD

// Whether some method of str has this size and first letter: most keys of messages have not.
bool may_be_str_method(std::string_view name) {
  static const auto kLetters = [] {
    std::array<uint32_t, 16> letters{};  // by size
    const auto add = [&](std::string_view n) { letters[n.size()] |= 1U << (n[0] - 'a'); };
    for (const auto& [known, method] : methods()) add(known);
    for (const auto known : {"encode", "translate", "maketrans"}) add(known);
    return letters;
  }();
  if (name.empty() || name.size() >= kLetters.size()) return false;
  return name[0] >= 'a' && name[0] <= 'z' && (kLetters[name.size()] >> (name[0] - 'a') & 1) != 0;
}

}  // namespace

Value str_method(Interp& interp, const Value& self, std::string_view name, CallArgs& args) {
  const StrMethodFn method = find_str_method(name);
  if (method == nullptr) raise(fmt::format("str.{}() is not supported in templates", name));
  return call_str_method(interp, method, self, args);
}

Value call_str_method(Interp& interp, StrMethodFn method, const Value& self, CallArgs& args) {
  interp.charge(static_cast<int64_t>(self.str().size() / 64));
  return method(interp, self, args);
}

StrMethodFn find_str_method(std::string_view name) {
  const auto it = methods().find(name);
  return it == methods().end() ? nullptr : it->second;
}

bool is_str_method(std::string_view name) {
  if (!may_be_str_method(name)) return false;
  return methods().contains(name) || name == "encode" || name == "translate" || name == "maketrans";
}

}  // namespace lorry::jinja
