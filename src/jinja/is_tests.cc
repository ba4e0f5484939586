// What may stand behind `is`.
#include <fmt/format.h>

#include <map>

#include "jinja/interp.h"

namespace lorry::jinja {

namespace {

const Value& only(CallArgs& args, const char* test) {
  if (args.positional.size() != 1 || !args.named.empty()) {
    raise(fmt::format("the test '{}' takes one argument", test));
  }
  return args.positional[0];
}

bool is_callable(const Value& v) {
  switch (v.type()) {
    case Type::kMacro:
    case Type::kFunction:
    case Type::kMethod:
    case Type::kLoop:
    case Type::kJoiner:
    case Type::kUndefined:
      return true;  // jinja2's Undefined has __call__
    default:
      return false;
  }
}

bool is_sequence(const Value& v) {
  switch (v.type()) {
    case Type::kStr:
    case Type::kList:
    case Type::kTuple:
    case Type::kRange:
    case Type::kDict:
    case Type::kUndefined:
      return true;
    default:
      return false;
  }
}

bool same_as(const Value& a, const Value& b) {
  if (a.type() != b.type()) return false;
  switch (a.type()) {
    case Type::kNone:
      return true;
    case Type::kBool:
      return a.as_bool() == b.as_bool();
    case Type::kInt:
      return a.as_int() == b.as_int() && a.as_int() >= -5 && a.as_int() <= 256;
    default:
      return a.obj() == b.obj();
  }
}

// `value % by == equal`
bool remainder_is(Interp& in, const Value& value, const Value& by, int64_t equal) {
  return equals(in.binary(ExprKind::kMod, value, by), Value::integer(equal));
}

bool case_is(Interp& in, const Value& v, const char* method) {
  CallArgs none;
  in.charge_characters(v);
  return truthy(str_method(in, Value::string(to_str(v)), method, none));
}

// a <= b (direction -1) or a >= b (1); false where a number is NaN.
bool ordered(const Value& a, const Value& b, const char* op, int direction) {
  const int c = compare(a, b, op);
  return c == 0 || c == direction;
}

#define LORRY_TEST(expr)                                   \
  [](Interp& in, const Value& v, CallArgs& args) -> bool { \
    (void)in, (void)args;                                  \
    return expr;                                           \
  }

const std::map<std::string_view, TestFn>& tests() {
  static const TestFn kEq = LORRY_TEST(equals(v, only(args, "eq")));
  static const TestFn kNe = LORRY_TEST(!equals(v, only(args, "ne")));
  static const TestFn kLt = LORRY_TEST(compare(v, only(args, "lt"), "<") == -1);
  static const TestFn kGt = LORRY_TEST(compare(v, only(args, "gt"), ">") == 1);
  static const TestFn kLe = LORRY_TEST(ordered(v, only(args, "le"), "<=", -1));
  static const TestFn kGe = LORRY_TEST(ordered(v, only(args, "ge"), ">=", 1));
  static const std::map<std::string_view, TestFn> kTests = {
      {"defined", LORRY_TEST(!v.is_undefined())},
      {"undefined", LORRY_TEST(v.is_undefined())},
      {"none", LORRY_TEST(v.is_none())},
      {"boolean", LORRY_TEST(v.is(Type::kBool))},
      {"true", LORRY_TEST(v.is(Type::kBool) && v.as_bool())},
      {"false", LORRY_TEST(v.is(Type::kBool) && !v.as_bool())},
      {"integer", LORRY_TEST(v.is(Type::kInt))},
      {"float", LORRY_TEST(v.is(Type::kFloat))},
      {"number", LORRY_TEST(v.is_number())},
      {"string", LORRY_TEST(v.is_str())},
      {"mapping", LORRY_TEST(v.is_dict())},
      {"sequence", LORRY_TEST(is_sequence(v))},
      {"iterable", LORRY_TEST(is_iterable(v))},
      {"callable", LORRY_TEST(is_callable(v))},
      {"escaped", LORRY_TEST(v.is_markup())},
      {"sameas", LORRY_TEST(same_as(v, only(args, "sameas")))},
      {"in", LORRY_TEST(in.contains(only(args, "in"), v))},
      {"odd", LORRY_TEST(remainder_is(in, v, Value::integer(2), 1))},
      {"even", LORRY_TEST(remainder_is(in, v, Value::integer(2), 0))},
      {"divisibleby", LORRY_TEST(remainder_is(in, v, only(args, "divisibleby"), 0))},
      {"lower", LORRY_TEST(case_is(in, v, "islower"))},
      {"upper", LORRY_TEST(case_is(in, v, "isupper"))},
      {"filter", LORRY_TEST(v.is_str() && find_filter(v.str()) != nullptr)},
      {"test", LORRY_TEST(v.is_str() && find_test(v.str()) != nullptr)},
      {"==", kEq},
      {"eq", kEq},
      {"equalto", kEq},
      {"!=", kNe},
      {"ne", kNe},
      {"<", kLt},
      {"lt", kLt},
      {"lessthan", kLt},
      {">", kGt},
      {"gt", kGt},
      {"greaterthan", kGt},
      {"<=", kLe},
      {"le", kLe},
      {">=", kGe},
      {"ge", kGe},
  };
  return kTests;
}

#undef LORRY_TEST

}  // namespace

TestFn find_test(std::string_view name) {
  const auto it = tests().find(name);
  return it == tests().end() ? nullptr : it->second;
}

}  // namespace lorry::jinja
