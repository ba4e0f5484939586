// Python's arithmetic, and slices.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/html.h"
#include "jinja/interp.h"
#include "jinja/unicode.h"

namespace lorry::jinja {

namespace {

[[noreturn]] void unsupported_operands(const char* op, const Value& a, const Value& b) {
  raise(fmt::format("unsupported operand type(s) for {}: '{}' and '{}'", op, type_name(a.type()),
                    type_name(b.type())));
}

const char* op_name(ExprKind op) {
  switch (op) {
    case ExprKind::kAdd:
      return "+";
    case ExprKind::kSub:
      return "-";
    case ExprKind::kMul:
      return "*";
    case ExprKind::kDiv:
      return "/";
    case ExprKind::kFloorDiv:
      return "//";
    case ExprKind::kMod:
      return "%";
    default:
      return "** or pow()";
  }
}

[[noreturn]] void overflow() { raise("an integer is too large"); }

int64_t floor_div(int64_t a, int64_t b) {
  const int64_t q = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? q - 1 : q;
}

Value int_power(int64_t base, int64_t exponent) {
  if (exponent < 0)
    return Value::real(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  int64_t out = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(out, base, &out)) overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) overflow();
  }
  return Value::integer(out);
}

Value int_arithmetic(ExprKind op, int64_t a, int64_t b) {
  int64_t out = 0;
  switch (op) {
    case ExprKind::kAdd:
      if (__builtin_add_overflow(a, b, &out)) overflow();
      return Value::integer(out);
    case ExprKind::kSub:
      if (__builtin_sub_overflow(a, b, &out)) overflow();
      return Value::integer(out);
    case ExprKind::kMul:
      if (__builtin_mul_overflow(a, b, &out)) overflow();
      return Value::integer(out);
    case ExprKind::kPow:
      return int_power(a, b);
    default:
      break;
  }
  if (b == 0) {
    raise(op == ExprKind::kDiv ? "division by zero" : "integer division or modulo by zero");
  }
  if (op == ExprKind::kDiv) return Value::real(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1) {
    if (op == ExprKind::kMod) return Value::integer(0);
    if (a == INT64_MIN) overflow();
    return Value::integer(-a);
  }
  const int64_t q = floor_div(a, b);
  return Value::integer(op == ExprKind::kFloorDiv ? q : a - q * b);
}

double float_mod(double a, double b) {
  const double r = std::fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

Value float_arithmetic(ExprKind op, double a, double b) {
  switch (op) {
    case ExprKind::kAdd:
      return Value::real(a + b);
    case ExprKind::kSub:
      return Value::real(a - b);
    case ExprKind::kMul:
      return Value::real(a * b);
    case ExprKind::kPow:
      return Value::real(std::pow(a, b));
    default:
      break;
  }
  if (b == 0) raise("float division by zero");
  if (op == ExprKind::kDiv) return Value::real(a / b);
  if (op == ExprKind::kMod) return Value::real(float_mod(a, b));
  return Value::real(std::floor((a - float_mod(a, b)) / b + 0.5));
}

Value repeated(Interp& interp, const Value& what, int64_t times) {
  const auto n = static_cast<size_t>(std::max<int64_t>(times, 0));
  if (what.is_str()) {
    const std::string_view s = what.str();
    if (!s.empty() && n > (size_t{1} << 40) / s.size()) interp.check_size(SIZE_MAX);
    interp.check_size(s.size() * n);
    std::string out;
    out.reserve(s.size() * n);
    for (size_t i = 0; i < n && !s.empty(); ++i) out += s;
    return interp.make_string(std::move(out));
  }
  const auto& items = what.items();
  if (!items.empty() && n > (size_t{1} << 24) / items.size()) interp.check_size(SIZE_MAX);
  interp.charge(static_cast<int64_t>(items.size() * n));
  std::vector<Value> out;
  for (size_t i = 0; i < n && !items.empty(); ++i)
    out.insert(out.end(), items.begin(), items.end());
  return what.is_list() ? Value::list(std::move(out)) : Value::tuple(std::move(out));
}

bool repeatable(const Value& v) { return v.is_str() || v.is_list() || v.is(Type::kTuple); }

Value joined_items(Interp& interp, const Value& a, const Value& b) {
  interp.charge(static_cast<int64_t>(a.items().size() + b.items().size()));
  std::vector<Value> out = a.items();
  out.insert(out.end(), b.items().begin(), b.items().end());
  return a.is_list() ? Value::list(std::move(out)) : Value::tuple(std::move(out));
}

}  // namespace

Value Interp::add(const Value& a, const Value& b) {
  if (a.is_str() && b.is_str()) {
    if (a.is_markup() || b.is_markup()) {
      const auto part = [](const Value& v) {
        return v.is_markup() ? std::string(v.str()) : escape_html(v.str());
      };
      return make_markup(part(a) + part(b));
    }
    check_size(a.str().size() + b.str().size());
    std::string out;
    out.reserve(a.str().size() + b.str().size());
    out += a.str();
    out += b.str();
    return make_string(std::move(out));
  }
  if (a.type() == b.type() && (a.is_list() || a.is(Type::kTuple))) return joined_items(*this, a, b);
  return binary(ExprKind::kAdd, a, b);
}

Value Interp::binary(ExprKind op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return int_arithmetic(op, a.as_int(), b.as_int());
    return float_arithmetic(op, a.as_double(), b.as_double());
  }
  if (op == ExprKind::kMod && a.is_str()) return percent_format(*this, a.str(), b);
  require_defined(a);
  require_defined(b);
  if (op == ExprKind::kMul && repeatable(a) && b.is_integral()) {
    return repeated(*this, a, b.as_int());
  }
  if (op == ExprKind::kMul && repeatable(b) && a.is_integral()) {
    return repeated(*this, b, a.as_int());
  }
  if (op == ExprKind::kAdd && repeatable(a)) {
    raise(fmt::format("can only concatenate {0} (not \"{1}\") to {0}", type_name(a.type()),
                      type_name(b.type())));
  }
  unsupported_operands(op_name(op), a, b);
}

Value Interp::eval_arithmetic(const Expr& e) {
  Value a = eval(*e.a);
  if (e.kind == ExprKind::kNegative || e.kind == ExprKind::kPositive) {
    require_defined(a);
    if (!a.is_number()) {
      raise(fmt::format("bad operand type for unary {}: '{}'",
                        e.kind == ExprKind::kNegative ? "-" : "+", type_name(a.type())));
    }
    const int sign = e.kind == ExprKind::kNegative ? -1 : 1;
    if (!a.is_integral()) return Value::real(sign * a.as_double());
    if (a.as_int() == INT64_MIN && sign < 0) overflow();
    return Value::integer(sign * a.as_int());
  }
  Value room;
  const Value& b = look(*e.b, room);
  line_ = e.line;
  return binary(e.kind, a, b);
}

// ---- slices

namespace {

int64_t slice_index(const Value& v, int64_t fallback) {
  if (v.is_none()) return fallback;
  require_defined(v);
  if (!v.is_integral()) raise("slice indices must be integers or None");
  return v.as_int();
}

}  // namespace

Value slice_value(Interp& interp, const Value& object, const Value& begin, const Value& end,
                  const Value& step_value) {
  require_defined(object);
  if (!object.is_str() && !object.is_sequence_obj()) {
    raise(fmt::format("'{}' object cannot be sliced", type_name(object.type())));
  }
  const int64_t n = interp.length(object);
  const int64_t step = std::clamp(slice_index(step_value, 1), -n - 1, n + 1);
  if (step == 0) raise("slice step cannot be zero");
  const int64_t low = step > 0 ? 0 : -1;
  const int64_t high = step > 0 ? n : n - 1;
  const auto place = [&](const Value& v, int64_t fallback) {
    if (v.is_none()) return fallback;
    int64_t i = slice_index(v, 0);
    if (i < 0) i += n;
    return std::clamp(i, low, high);
  };
  const int64_t from = place(begin, step > 0 ? low : high);
  const int64_t to = place(end, step > 0 ? high : low);
  if (object.is_str()) {
    const std::string_view s = object.str();
    const bool ascii = static_cast<size_t>(n) == s.size();
    if (step == 1) {
      if (from >= to) return Value::string("");
      const size_t b =
          ascii ? static_cast<size_t>(from) : byte_offset(s, static_cast<size_t>(from));
      const auto count = static_cast<size_t>(to - from);
      const size_t size = ascii ? count : byte_offset(s.substr(b), count);
      return interp.make_string(std::string(s.substr(b, size)));
    }
    const Value parts = interp.elements(object);
    std::string out;
    for (int64_t i = from; step > 0 ? i < to : i > to; i += step) {
      out += parts.items()[static_cast<size_t>(i)].str();
    }
    return interp.make_string(std::move(out));
  }
  std::vector<Value> out;
  for (int64_t i = from; step > 0 ? i < to : i > to; i += step) {
    out.push_back(object.items()[static_cast<size_t>(i)]);
  }
  interp.charge(static_cast<int64_t>(out.size()));
  return object.is(Type::kTuple) ? Value::tuple(std::move(out)) : Value::list(std::move(out));
}

}  // namespace lorry::jinja
