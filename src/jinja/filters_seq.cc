// Filters over sequences and mappings.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "jinja/filters.h"
#include "jinja/unicode.h"

namespace lorry::jinja {

namespace {

bool given(const Value& v) { return !v.is_missing() && !v.is_none(); }
bool yes(const Value& v) { return !v.is_missing() && truthy(v); }

// "address.city.0" as the keys to follow.
std::vector<Value> attribute_path(const Value& attribute) {
  if (!given(attribute)) return {};
  if (!attribute.is_str()) return {attribute};
  std::vector<Value> path;
  std::string_view s = attribute.str();
  while (true) {
    const size_t dot = s.find('.');
    const std::string_view part = s.substr(0, dot);
    int64_t n = 0;
    const bool digits =
        !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    path.push_back(digits && parse_int(part, 10, n) ? Value::integer(n)
                                                    : Value::string(std::string(part)));
    if (dot == std::string_view::npos) return path;
    s = s.substr(dot + 1);
  }
}

Value follow(Interp& in, Value item, const std::vector<Value>& path, const Value& fallback) {
  for (const Value& key : path) {
    item = in.get_item(item, key);
    if (given(fallback) && item.is_undefined()) item = fallback;
  }
  return item;
}

Value ignore_case(const Value& v) { return v.is_str() ? Value::string(to_lower(v.str())) : v; }

// The keys by which sort, unique, min, max and groupby compare.
class Keys {
 public:
  Keys(Interp& in, const Value& attribute, bool fold, const Value& fallback = Value::missing())
      : in_(in), path_(attribute_path(attribute)), fold_(fold), fallback_(fallback) {}

  Value operator()(const Value& item) const {
    Value key = follow(in_, item, path_, fallback_);
    return fold_ ? ignore_case(key) : key;
  }

 private:
  Interp& in_;
  std::vector<Value> path_;
  bool fold_;
  Value fallback_;
};

struct Keyed {
  Value key;
  Value item;
};

// Stable, and `reverse` keeps equal elements in their order, as Python's sorted() does.
void sort_keyed(Interp& in, std::vector<Keyed>& all, bool reverse) {
  const double n = static_cast<double>(all.size());
  in.charge(static_cast<int64_t>(2 * n * std::log2(n + 1)));
  std::stable_sort(all.begin(), all.end(), [&](const Keyed& a, const Keyed& b) {
    return reverse ? compare(b.key, a.key, "<") == -1 : compare(a.key, b.key, "<") == -1;
  });
}

Value items_of(std::vector<Keyed> all) {
  std::vector<Value> out;
  out.reserve(all.size());
  for (auto& k : all) out.push_back(std::move(k.item));
  return Value::list(std::move(out));
}

Value sort(Interp& in, const Value& v, CallArgs& args) {
  Value reverse, case_sensitive, attribute;
  args.bind("sort", {"reverse", "case_sensitive", "attribute"},
            {&reverse, &case_sensitive, &attribute});
  std::vector<Keys> keys;
  if (attribute.is_str()) {
    std::string_view rest = attribute.str();
    while (true) {
      const size_t comma = rest.find(',');
      keys.emplace_back(in, Value::string(std::string(rest.substr(0, comma))),
                        !yes(case_sensitive));
      if (comma == std::string_view::npos) break;
      rest = rest.substr(comma + 1);
    }
  } else {
    keys.emplace_back(in, attribute, !yes(case_sensitive));
  }
  std::vector<Keyed> all;
  const Value items = in.elements(v);
  for (const Value& item : items.items()) {
    std::vector<Value> key;
    for (const Keys& k : keys) key.push_back(k(item));
    all.push_back({Value::list(std::move(key)), item});
  }
  sort_keyed(in, all, yes(reverse));
  return items_of(std::move(all));
}

Value dictsort(Interp& in, const Value& v, CallArgs& args) {
  Value case_sensitive, by, reverse;
  args.bind("dictsort", {"case_sensitive", "by", "reverse"}, {&case_sensitive, &by, &reverse});
  require_defined(v);
  if (!v.is_dict()) raise(fmt::format("'{}' object has no attribute 'items'", type_name(v.type())));
  const std::string what = by.is_missing() ? "key" : to_str(by);
  if (what != "key" && what != "value") raise("You can only sort by either \"key\" or \"value\"");
  std::vector<Keyed> all;
  for (const auto& [key, value] : v.as<DictObj>()->items) {
    const Value& k = what == "key" ? key : value;
    all.push_back({yes(case_sensitive) ? k : ignore_case(k), Value::tuple({key, value})});
  }
  sort_keyed(in, all, yes(reverse));
  return items_of(std::move(all));
}

Value unique(Interp& in, const Value& v, CallArgs& args) {
  Value case_sensitive, attribute;
  args.bind("unique", {"case_sensitive", "attribute"}, {&case_sensitive, &attribute});
  const Keys keys(in, attribute, !yes(case_sensitive));
  DictObj seen;
  std::vector<Value> out;
  const Value items = in.elements(v);
  for (const Value& item : items.items()) {
    const Value key = keys(item);
    if (key.is_list() || key.is_dict()) {
      raise(fmt::format("unhashable type: '{}'", type_name(key.type())));
    }
    if (!key.is_str()) in.charge(static_cast<int64_t>(seen.items.size()));
    if (seen.find(key) != nullptr) continue;
    seen.set(key, Value::none());
    out.push_back(item);
  }
  return Value::generator(std::move(out));
}

Value extreme(Interp& in, const Value& v, CallArgs& args, bool largest) {
  Value case_sensitive, attribute;
  args.bind(largest ? "max" : "min", {"case_sensitive", "attribute"},
            {&case_sensitive, &attribute});
  const Keys keys(in, attribute, !yes(case_sensitive));
  const Value items = in.elements(v);
  if (items.items().empty()) {
    return Value::undefined_message("No aggregated item, sequence was empty.");
  }
  Value best = items.items()[0];
  Value best_key = keys(best);
  for (size_t i = 1; i < items.items().size(); ++i) {
    Value key = keys(items.items()[i]);
    const int c = compare(key, best_key, largest ? ">" : "<");
    if (c != (largest ? 1 : -1)) continue;
    best = items.items()[i];
    best_key = std::move(key);
  }
  return best;
}

Value sum(Interp& in, const Value& v, CallArgs& args) {
  Value attribute, start;
  args.bind("sum", {"attribute", "start"}, {&attribute, &start});
  const std::vector<Value> path = attribute_path(attribute);
  Value total = start.is_missing() ? Value::integer(0) : start;
  if (total.is_str()) raise("sum() can't sum strings [use ''.join(seq) instead]");
  const Value items = in.elements(v);
  for (const Value& item : items.items()) {
    total = in.add(total, follow(in, item, path, Value::missing()));
  }
  return total;
}

Value groupby(Interp& in, const Value& v, CallArgs& args) {
  Value attribute, fallback, case_sensitive;
  args.bind("groupby", {"attribute", "default", "case_sensitive"},
            {&attribute, &fallback, &case_sensitive});
  const bool fold = !yes(case_sensitive);
  const Keys keys(in, attribute, fold, fallback);
  const Keys plain(in, attribute, false, fallback);
  std::vector<Keyed> all;
  const Value items = in.elements(v);
  for (const Value& item : items.items()) all.push_back({keys(item), item});
  sort_keyed(in, all, false);
  std::vector<Value> out;
  for (size_t i = 0; i < all.size();) {
    std::vector<Value> group;
    const Value key = all[i].key;
    for (; i < all.size() && equals(all[i].key, key); ++i) group.push_back(all[i].item);
    Value shown = fold ? plain(group.front()) : key;
    Value pair = Value::tuple({std::move(shown), Value::list(std::move(group))});
    pair.as<ListObj>()->first_name = Value::string("grouper");
    pair.as<ListObj>()->second_name = Value::string("list");
    out.push_back(std::move(pair));
  }
  return Value::list(std::move(out));
}

Value join(Interp& in, const Value& v, CallArgs& args) {
  Value separator, attribute;
  args.bind("join", {"d", "attribute"}, {&separator, &attribute});
  const std::string between = separator.is_missing() ? "" : to_str(separator);
  const std::vector<Value> path = attribute_path(attribute);
  const Value items = in.elements(v);
  std::string out;
  bool first = true;
  for (const Value& item : items.items()) {
    if (!first) out += between;
    first = false;
    append_str(path.empty() ? item : follow(in, item, path, Value::missing()), out);
    in.check_size(out.size());
  }
  return in.make_string(std::move(out));
}

Value map(Interp& in, const Value& v, CallArgs& args) {
  std::vector<Value> out;
  if (!truthy(v)) return Value::generator({});
  if (args.positional.empty()) raise("map requires a filter argument");
  const Value name = args.positional.front();
  CallArgs inner;
  inner.positional.assign(args.positional.begin() + 1, args.positional.end());
  inner.named = args.named;
  const Value items = in.elements(v);
  for (const Value& item : items.items()) {
    CallArgs each = inner;
    out.push_back(in.apply_filter(name, item, each));
  }
  return Value::generator(std::move(out));
}

Value map_attribute(Interp& in, const Value& v, CallArgs& args) {
  const bool by_attribute = args.positional.empty() && !args.named.empty();
  if (!by_attribute) return map(in, v, args);
  Value attribute, fallback;
  args.bind("map", {"attribute", "default"}, {&attribute, &fallback});
  if (!truthy(v)) return Value::generator({});
  if (attribute.is_missing()) raise("map requires a filter argument");
  const std::vector<Value> path = attribute_path(attribute);
  std::vector<Value> out;
  const Value items = in.elements(v);
  for (const Value& item : items.items()) out.push_back(follow(in, item, path, fallback));
  return Value::generator(std::move(out));
}

// select, reject, selectattr, rejectattr.
Value select(Interp& in, const Value& v, CallArgs& args, bool wanted, bool by_attribute) {
  std::vector<Value> path;
  size_t used = 0;
  if (by_attribute) {
    if (args.positional.empty()) raise("Missing parameter for attribute name");
    path = attribute_path(args.positional[used++]);
  }
  const Value test = used < args.positional.size() ? args.positional[used++] : Value::missing();
  CallArgs rest;
  rest.positional.assign(args.positional.begin() + static_cast<std::ptrdiff_t>(used),
                         args.positional.end());
  rest.named = args.named;
  std::vector<Value> out;
  if (!truthy(v)) return Value::generator({});
  const Value items = in.elements(v);
  for (const Value& item : items.items()) {
    const Value subject = path.empty() ? item : follow(in, item, path, Value::missing());
    bool holds = false;
    if (test.is_missing()) {
      holds = truthy(subject);
    } else {
      CallArgs each = rest;
      holds = in.apply_test(test, subject, each);
    }
    if (holds == wanted) out.push_back(item);
  }
  return Value::generator(std::move(out));
}

Value first(Interp& in, const Value& v, CallArgs&) {
  if (v.is(Type::kGenerator)) {
    auto& items = v.as<ListObj>()->items;
    if (!items.empty()) {
      Value out = std::move(items.front());
      items.erase(items.begin());
      return out;
    }
  }
  const Value items = in.elements(v);
  if (items.items().empty()) return Value::undefined_message("No first item, sequence was empty.");
  return items.items().front();
}

Value last(Interp& in, const Value& v, CallArgs&) {
  if (v.is(Type::kGenerator)) raise("'generator' object is not reversible");
  const Value items = in.elements(v);
  if (items.items().empty()) return Value::undefined_message("No last item, sequence was empty.");
  return items.items().back();
}

Value reverse(Interp& in, const Value& v, CallArgs&) {
  if (v.is_str()) {
    return slice_value(in, v, Value::none(), Value::none(), Value::integer(-1));
  }
  if (!is_iterable(v)) raise("argument must be iterable");
  const Value items = in.elements(v);
  std::vector<Value> out(items.items().rbegin(), items.items().rend());
  return Value::generator(std::move(out));
}

Value list(Interp& in, const Value& v, CallArgs&) {
  const Value items = in.elements(v);
  return Value::list(items.items());
}

Value items(Interp& in, const Value& v, CallArgs&) {
  if (v.is_undefined()) return Value::generator({});
  if (!v.is_dict()) raise("Can only get item pairs from a mapping.");
  std::vector<Value> out;
  in.charge(static_cast<int64_t>(4 * v.as<DictObj>()->items.size()));
  for (const auto& [key, value] : v.as<DictObj>()->items) out.push_back(Value::tuple({key, value}));
  return Value::generator(std::move(out));
}

int64_t need_count(const Value& v, const char* what) {
  if (!v.is_integral() || v.as_int() <= 0 || v.as_int() > (1 << 20)) {
    raise(fmt::format("{} needs a positive number", what));
  }
  return v.as_int();
}

Value batch(Interp& in, const Value& v, CallArgs& args) {
  Value count, fill;
  args.bind("batch", {"linecount", "fill_with"}, {&count, &fill});
  const auto n = static_cast<size_t>(need_count(count, "batch"));
  const Value all = in.elements(v);
  std::vector<Value> out;
  for (size_t i = 0; i < all.items().size(); i += n) {
    const size_t end = std::min(i + n, all.items().size());
    std::vector<Value> row(all.items().begin() + static_cast<std::ptrdiff_t>(i),
                           all.items().begin() + static_cast<std::ptrdiff_t>(end));
    if (given(fill)) {
      in.charge(static_cast<int64_t>(n));
      row.resize(n, fill);
    }
    out.push_back(Value::list(std::move(row)));
  }
  return Value::generator(std::move(out));
}

Value slice(Interp& in, const Value& v, CallArgs& args) {
  Value count, fill;
  args.bind("slice", {"slices", "fill_with"}, {&count, &fill});
  const auto n = static_cast<size_t>(need_count(count, "slice"));
  in.charge(static_cast<int64_t>(n));
  const Value all = in.elements(v);
  const size_t per = all.items().size() / n;
  const size_t extra = all.items().size() % n;
  std::vector<Value> out;
  auto at = all.items().begin();
  for (size_t i = 0; i < n; ++i) {
    const auto end = at + static_cast<std::ptrdiff_t>(per + (i < extra));
    std::vector<Value> column(at, end);
    if (given(fill) && i >= extra) column.push_back(fill);
    out.push_back(Value::list(std::move(column)));
    at = end;
  }
  return Value::generator(std::move(out));
}

}  // namespace

const FilterTable& sequence_filters() {
  static const FilterTable kFilters = {
      {"sort", sort},
      {"dictsort", dictsort},
      {"unique", unique},
      {"sum", sum},
      {"groupby", groupby},
      {"join", join},
      {"map", map_attribute},
      {"first", first},
      {"last", last},
      {"reverse", reverse},
      {"list", list},
      {"items", items},
      {"batch", batch},
      {"slice", slice},
      {"min", [](Interp& in, const Value& v, CallArgs& a) { return extreme(in, v, a, false); }},
      {"max", [](Interp& in, const Value& v, CallArgs& a) { return extreme(in, v, a, true); }},
      {"select",
       [](Interp& in, const Value& v, CallArgs& a) { return select(in, v, a, true, false); }},
      {"reject",
       [](Interp& in, const Value& v, CallArgs& a) { return select(in, v, a, false, false); }},
      {"selectattr",
       [](Interp& in, const Value& v, CallArgs& a) { return select(in, v, a, true, true); }},
      {"rejectattr",
       [](Interp& in, const Value& v, CallArgs& a) { return select(in, v, a, false, true); }},
  };
  return kFilters;
}

}  // namespace lorry::jinja
