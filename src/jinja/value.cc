#include "jinja/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "jinja/unicode.h"

namespace lorry::jinja {

void raise(std::string message) { throw TemplateError{std::move(message), 0}; }

Value Value::byte(char c) {
  if (static_cast<uint8_t>(c) >= 128) return string(std::string(1, c));
  static const auto kAll = [] {
    std::array<StrObj*, 128> all{};
    for (size_t i = 0; i < all.size(); ++i) {
      all[i] = new StrObj(std::string(1, static_cast<char>(i)));
      all[i]->refs = -1;
      all[i]->ascii = 1;
    }
    return all;
  }();
  return object(Type::kStr, kAll[static_cast<size_t>(c)]);
}

Value Value::string(std::string s) { return object(Type::kStr, new StrObj(std::move(s))); }

Value Value::markup(std::string s) {
  auto* obj = new StrObj(std::move(s));
  obj->markup = true;
  return object(Type::kStr, obj);
}

ListObj::ListObj(std::vector<Value> v)
    : items(std::move(v)), counted_(static_cast<int64_t>(items.capacity() * sizeof(Value))) {
  meter.bytes += counted_;
  for (const Value& item : items) depth = std::max(depth, depth_above(item));
}

Value Value::list(std::vector<Value> items) {
  return object(Type::kList, new ListObj(std::move(items)));
}
Value Value::tuple(std::vector<Value> items) {
  return object(Type::kTuple, new ListObj(std::move(items)));
}
Value Value::generator(std::vector<Value> items) {
  return object(Type::kGenerator, new ListObj(std::move(items)));
}

namespace {
constexpr uint8_t kWholeMessage = 255;
}

Value Value::undefined(const Value& name, Type owner) {
  Value v(Type::kUndefined);
  if (name.is_str() && name.tag_.keep != Keep::kBorrowed) {
    v.hold(name.u_.obj);
  } else {
    v.hold(new StrObj(name.is_str() ? std::string(name.str()) : repr(name)));
  }
  v.tag_.aux = static_cast<uint8_t>(owner) | (name.is_str() ? 0 : 0x80);
  return v;
}

Value Value::undefined_message(std::string message) {
  Value v(Type::kUndefined);
  v.hold(new StrObj(std::move(message)));
  v.tag_.aux = kWholeMessage;
  return v;
}

std::string undefined_text(const Value& value) {
  if (value.obj() == nullptr) return "value is undefined";
  const std::string name(value.as<StrObj>()->view);
  if (value.aux() == kWholeMessage) return name;
  const bool quoted = (value.aux() & 0x80) == 0;
  const auto owner = static_cast<Type>(value.aux() & 0x7F);
  if (owner == Type::kMissing) return "'" + name + "' is undefined";
  const std::string who =
      owner == Type::kNone ? "'None'" : fmt::format("'{} object'", type_name(owner));
  if (!quoted) return who + " has no element " + name;
  return fmt::format("{} has no attribute '{}'", who, name);
}

void require_defined(const Value& value) {
  if (value.is_undefined()) raise(undefined_text(value));
}

int16_t depth_above(const Value& child) {
  if (child.type() < Type::kList || child.is(Type::kNamespace) || child.is(Type::kMacro)) return 1;
  const int depth = child.obj()->depth + 1;
  if (depth > kMaxValueDepth) raise("values are nested too deeply");
  return static_cast<int16_t>(depth);
}

const Value* DictObj::find(std::string_view key) const {
  if (key.size() > 256) meter.charge(static_cast<int64_t>(key.size() / 64));
  if (index) {
    const auto it = index->find(key);
    return it == index->end() ? nullptr : &items[it->second].second;
  }
  for (const auto& [k, v] : items) {
    if (k.is_str() && same_text(k.str(), key)) return &v;
  }
  return nullptr;
}

const Value* DictObj::find(const Value& key) const {
  if (key.is_str()) return find(key.str());
  meter.charge(static_cast<int64_t>(items.size() / 4));
  for (const auto& [k, v] : items) {
    if (equals(k, key)) return &v;
  }
  return nullptr;
}

void DictObj::set(Value key, Value value) {
  depth = std::max({depth, depth_above(key), depth_above(value)});
  if (const Value* there = find(key)) {
    *const_cast<Value*>(there) = std::move(value);
    return;
  }
  items.emplace_back(std::move(key), std::move(value));
  meter.bytes += kEntryBytes;
  add_to_index(items.size() - 1);
}

void DictObj::add_to_index(size_t first) {
  constexpr size_t kIndexFrom = 12;
  if (items.size() < kIndexFrom) return;
  if (!index) {
    index = std::make_unique<std::unordered_map<std::string_view, size_t>>();
    first = 0;
  }
  for (size_t i = first; i < items.size(); ++i) {
    if (items[i].first.is_str()) index->emplace(items[i].first.str(), i);
  }
}

std::string_view type_name(Type type) {
  switch (type) {
    case Type::kMissing:
      return "missing";
    case Type::kUndefined:
      return "Undefined";
    case Type::kNone:
      return "NoneType";
    case Type::kBool:
      return "bool";
    case Type::kInt:
      return "int";
    case Type::kFloat:
      return "float";
    case Type::kStr:
      return "str";
    case Type::kList:
      return "list";
    case Type::kTuple:
      return "tuple";
    case Type::kDict:
      return "dict";
    case Type::kNamespace:
      return "Namespace";
    case Type::kRange:
      return "range";
    case Type::kGenerator:
      return "generator";
    case Type::kView:
      return "dict_view";
    case Type::kMacro:
      return "Macro";
    case Type::kFunction:
      return "function";
    case Type::kMethod:
      return "builtin_function_or_method";
    case Type::kLoop:
      return "LoopContext";
    case Type::kCycler:
      return "Cycler";
    case Type::kJoiner:
      return "Joiner";
  }
  return "object";
}

bool truthy(const Value& v) {
  switch (v.type()) {
    case Type::kMissing:
    case Type::kUndefined:
    case Type::kNone:
      return false;
    case Type::kBool:
    case Type::kInt:
      return v.as_int() != 0;
    case Type::kFloat:
      return v.as_double() != 0;
    case Type::kStr:
      return !v.str().empty();
    case Type::kList:
    case Type::kTuple:
    case Type::kRange:
      return !v.items().empty();
    case Type::kDict:
      return !v.as<DictObj>()->items.empty();
    case Type::kView:
      return length_of(v) > 0;
    case Type::kLoop:
      return length_of(v) > 0;
    default:
      return true;
  }
}

namespace {

bool dicts_equal(const DictObj& a, const DictObj& b) {
  if (a.items.size() != b.items.size()) return false;
  meter.charge(static_cast<int64_t>(a.items.size()));
  return std::all_of(a.items.begin(), a.items.end(), [&](const auto& item) {
    const Value* other = b.find(item.first);
    return other != nullptr && equals(item.second, *other);
  });
}

bool items_equal(const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  meter.charge(static_cast<int64_t>(a.size()));
  return std::equal(a.begin(), a.end(), b.begin(), equals);
}

// Looking at two texts of which one is long.
void charge_text(std::string_view a, std::string_view b) {
  const size_t shorter = std::min(a.size(), b.size());
  if (shorter > 256) meter.charge(static_cast<int64_t>(shorter / 64));
}

}  // namespace

bool equals(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.as_int() == b.as_int();
    return a.as_double() == b.as_double();
  }
  if (a.type() != b.type()) return false;
  switch (a.type()) {
    case Type::kMissing:
    case Type::kUndefined:
    case Type::kNone:
      return true;
    case Type::kStr:
      charge_text(a.str(), b.str());
      return same_text(a.str(), b.str());
    case Type::kList:
    case Type::kTuple:
    case Type::kRange:
      return a.obj() == b.obj() || items_equal(a.items(), b.items());
    case Type::kDict:
      return a.obj() == b.obj() || dicts_equal(*a.as<DictObj>(), *b.as<DictObj>());
    default:
      return a.obj() == b.obj();
  }
}

int compare(const Value& a, const Value& b, const char* op) {
  require_defined(a);
  require_defined(b);
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) {
      return a.as_int() < b.as_int() ? -1 : a.as_int() > b.as_int();
    }
    const double x = a.as_double(), y = b.as_double();
    return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;  // 2: NaN, less than nothing
  }
  if (a.is_str() && b.is_str()) {
    charge_text(a.str(), b.str());
    const int c = a.str().compare(b.str());  // UTF-8 keeps the order of code points
    return c < 0 ? -1 : c > 0;
  }
  if (a.type() == b.type() && (a.is_list() || a.is(Type::kTuple))) {
    const auto &x = a.items(), &y = b.items();
    meter.charge(static_cast<int64_t>(std::min(x.size(), y.size())));
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equals(x[i], y[i])) return compare(x[i], y[i], op);
    }
    return x.size() < y.size() ? -1 : x.size() > y.size();
  }
  raise(fmt::format("'{}' not supported between instances of '{}' and '{}'", op,
                    type_name(a.type()), type_name(b.type())));
}

Value from_json(const Json& json, int depth) {
  if (depth > kMaxValueDepth - 10) raise("the messages are nested too deeply");
  switch (json.type()) {
    case Json::value_t::null:
      return Value::none();
    case Json::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case Json::value_t::number_unsigned: {
      const auto n = json.get<uint64_t>();
      if (n > INT64_MAX) return Value::real(static_cast<double>(n));
      return Value::integer(static_cast<int64_t>(n));
    }
    case Json::value_t::number_float:
      return Value::real(json.get<double>());
    case Json::value_t::string:
      return Value::borrowed(json.get_ref<const std::string&>());
    case Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const Json& item : json) items.push_back(from_json(item, depth + 1));
      return Value::list(std::move(items));
    }
    case Json::value_t::object: {
      auto* dict = new DictObj;
      Value value = Value::object(Type::kDict, dict);
      dict->items.reserve(json.size());
      for (const auto& [key, item] : json.get_ref<const Json::object_t&>()) {
        if (const auto* text = item.get_ptr<const std::string*>()) {  // most are
          dict->items.emplace_back(Value::borrowed(key), Value::borrowed(*text));
          continue;
        }
        const auto& added =
            dict->items.emplace_back(Value::borrowed(key), from_json(item, depth + 1));
        if (item.is_structured()) dict->depth = std::max(dict->depth, depth_above(added.second));
      }
      meter.bytes += DictObj::kEntryBytes * static_cast<int64_t>(dict->items.size());
      dict->add_to_index(0);
      return value;
    }
    default:
      raise("binary values are not for templates");
  }
}

bool is_iterable(const Value& v) {
  switch (v.type()) {
    case Type::kUndefined:
    case Type::kStr:
    case Type::kList:
    case Type::kTuple:
    case Type::kDict:
    case Type::kRange:
    case Type::kGenerator:
    case Type::kView:
    case Type::kLoop:
      return true;
    default:
      return false;
  }
}

Value iterate(const Value& v) {
  std::vector<Value> out;
  switch (v.type()) {
    case Type::kList:
    case Type::kTuple:
    case Type::kRange:
      return v;
    case Type::kGenerator:
      out.swap(v.as<ListObj>()->items);
      break;
    case Type::kUndefined:
      break;
    case Type::kStr:
      for (size_t pos = 0; pos < v.str().size();) {
        const size_t at = pos;
        next_code_point(v.str(), pos);
        out.push_back(pos - at == 1 ? Value::byte(v.str()[at])
                                    : Value::string(std::string(v.str().substr(at, pos - at))));
      }
      break;
    case Type::kDict:
      for (const auto& [key, value] : v.as<DictObj>()->items) out.push_back(key);
      break;
    case Type::kView: {
      const auto* view = v.as<ViewObj>();
      for (const auto& [key, value] : view->dict.as<DictObj>()->items) {
        if (view->kind == ViewObj::kKeys) out.push_back(key);
        if (view->kind == ViewObj::kValues) out.push_back(value);
        if (view->kind == ViewObj::kItems) out.push_back(Value::tuple({key, value}));
      }
      break;
    }
    default:
      raise(fmt::format("'{}' object is not iterable", type_name(v.type())));
  }
  return Value::list(std::move(out));
}

int64_t length_of(const Value& v) {
  switch (v.type()) {
    case Type::kUndefined:
      return 0;
    case Type::kStr: {
      if (v.is_borrowed()) return static_cast<int64_t>(code_point_count(v.str()));
      auto* s = v.as<StrObj>();
      if (s->refs >= 0 && s->ascii < 0) s->ascii = is_ascii(s->view);
      return static_cast<int64_t>(s->ascii == 1 ? s->view.size() : code_point_count(s->view));
    }
    case Type::kList:
    case Type::kTuple:
    case Type::kRange:
      return static_cast<int64_t>(v.items().size());
    case Type::kDict:
      return static_cast<int64_t>(v.as<DictObj>()->items.size());
    case Type::kView:
      return static_cast<int64_t>(v.as<ViewObj>()->dict.as<DictObj>()->items.size());
    default:
      return -1;
  }
}

}  // namespace lorry::jinja
