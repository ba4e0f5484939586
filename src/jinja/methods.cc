// Which methods the values of each type have.
#include <algorithm>

#include "jinja/interp.h"

namespace lorry::jinja {

namespace {

bool among(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

bool is_only_a_key(std::string_view name) {
  return !name.starts_with("__") && !has_method(Type::kDict, name);
}

bool has_method(Type type, std::string_view name) {
  switch (type) {
    case Type::kStr:
      return is_str_method(name);
    case Type::kDict:
      if (name.size() < 3 || name.size() > 10) return false;
      return among(name, {"get", "items", "keys", "values", "copy", "fromkeys", "clear", "pop",
                          "popitem", "setdefault", "update"});
    case Type::kList:
      return among(name, {"append", "clear", "copy", "count", "extend", "index", "insert", "pop",
                          "remove", "reverse", "sort"});
    case Type::kTuple:
    case Type::kRange:
      return among(name, {"count", "index"});
    case Type::kFloat:
      return name == "is_integer";
    case Type::kLoop:
      return among(name, {"cycle", "changed"});
    case Type::kCycler:
      return among(name, {"next", "reset"});
    case Type::kFunction:
      return name == "fromkeys";
    default:
      return false;
  }
}

bool is_mutating(Type type, std::string_view name) {
  if (type == Type::kDict) return among(name, {"clear", "pop", "popitem", "setdefault", "update"});
  if (type != Type::kList) return false;
  return among(name, {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"});
}

}  // namespace lorry::jinja
