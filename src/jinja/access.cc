// What lies under an attribute, an index or a slice.
#include <fmt/format.h>

#include "jinja/interp.h"
#include "jinja/unicode.h"

namespace lorry::jinja {

LoopField find_loop_field(std::string_view name) {
  static constexpr std::pair<std::string_view, LoopField> kFields[] = {
      {"index", LoopField::kIndex},         {"index0", LoopField::kIndex0},
      {"first", LoopField::kFirst},         {"last", LoopField::kLast},
      {"length", LoopField::kLength},       {"revindex", LoopField::kRevindex},
      {"revindex0", LoopField::kRevindex0}, {"depth", LoopField::kDepth},
      {"depth0", LoopField::kDepth0},       {"previtem", LoopField::kPrevitem},
      {"nextitem", LoopField::kNextitem}};
  for (const auto& [known, field] : kFields) {
    if (known == name) return field;
  }
  return LoopField::kNone;
}

namespace {

Value loop_attribute(const LoopObj& loop, LoopField field, const Value& name) {
  const auto& items = loop.items.items();
  const auto count = static_cast<int64_t>(items.size());
  const auto at = static_cast<size_t>(loop.index0);
  switch (field) {
    case LoopField::kIndex:
      return Value::integer(loop.index0 + 1);
    case LoopField::kIndex0:
      return Value::integer(loop.index0);
    case LoopField::kFirst:
      return Value::boolean(loop.index0 == 0);
    case LoopField::kLast:
      return Value::boolean(loop.index0 + 1 == count);
    case LoopField::kLength:
      return Value::integer(count);
    case LoopField::kRevindex:
      return Value::integer(count - loop.index0);
    case LoopField::kRevindex0:
      return Value::integer(count - loop.index0 - 1);
    case LoopField::kDepth:
      return Value::integer(loop.depth0 + 1);
    case LoopField::kDepth0:
      return Value::integer(loop.depth0);
    case LoopField::kPrevitem:
      if (loop.index0 > 0) return items[at - 1];
      return Value::undefined_message("there is no previous item");
    case LoopField::kNextitem:
      if (loop.index0 + 1 < count) return items[at + 1];
      return Value::undefined_message("there is no next item");
    case LoopField::kNone:
      break;
  }
  return Value::undefined(name, Type::kLoop);
}

Value bound_method(const Value& self, const Value& name) {
  auto* method = new MethodObj;
  Value out = Value::object(Type::kMethod, method);
  method->self = self;
  method->name = name;
  method->depth = depth_above(self);
  return out;
}

}  // namespace

Value Interp::eval_item(const Expr& e) {
  if (e.b->kind == ExprKind::kConst) {
    Value room;
    return get_item(look(*e.a, room), e.b->value);
  }
  const Value object = eval(*e.a);
  if (e.b->kind == ExprKind::kSlice) return eval_slice(object, *e.b);
  Value room;
  return get_item(object, look(*e.b, room));
}

Value Interp::eval_attribute(const Expr& e) {
  Value room;
  const Value& object = look(*e.a, room);
  if (object.is(Type::kLoop) && e.loop_field != LoopField::kNone)
    return loop_attribute(*object.as<LoopObj>(), e.loop_field, e.value);
  if (!object.is_dict() || !e.only_a_key) return get_attribute(object, e.value);
  const Value* found = object.as<DictObj>()->find(e.value.str());
  return found != nullptr ? *found : Value::undefined(e.value, Type::kDict);
}

Value Interp::eval_slice(const Value& object, const Expr& slice) {
  const Value begin = slice.b ? eval(*slice.b) : Value::none();
  const Value end = slice.c ? eval(*slice.c) : Value::none();
  const Value step = slice.d ? eval(*slice.d) : Value::none();
  return slice_value(*this, object, begin, end, step);
}

Value Interp::get_item(const Value& object, const Value& key) {
  require_defined(object);
  if (object.is_dict()) {
    if (const Value* found = object.as<DictObj>()->find(key)) return *found;
  } else if (key.is_integral() && object.is_sequence_obj()) {
    const auto n = static_cast<int64_t>(object.items().size());
    const int64_t i = key.as_int() < 0 ? key.as_int() + n : key.as_int();
    if (i >= 0 && i < n) return object.items()[static_cast<size_t>(i)];
  } else if (key.is_integral() && object.is_str()) {
    const int64_t n = length(object);
    const int64_t i = key.as_int() < 0 ? key.as_int() + n : key.as_int();
    if (i >= 0 && i < n) return character(object.str(), i, n);
  }
  if (key.is_str() && (object.is(Type::kNamespace) || object.is(Type::kLoop) ||
                       object.is(Type::kCycler) || has_method(object.type(), key.str()))) {
    return get_attribute(object, key);
  }
  return Value::undefined(key, object.type());
}

// Code point `i` of a string that has `n`.
Value Interp::character(std::string_view s, int64_t i, int64_t n) {
  const bool bytes = static_cast<size_t>(n) == s.size();
  if (bytes) return Value::byte(s[static_cast<size_t>(i)]);
  const size_t at = byte_offset(s, static_cast<size_t>(i));
  charge(static_cast<int64_t>(at / 16));
  size_t behind = at;
  next_code_point(s, behind);
  return make_string(std::string(s.substr(at, behind - at)));
}

int64_t Interp::length(const Value& v) {
  if (!v.is_str()) return length_of(v);
  const auto bytes = static_cast<int64_t>(v.str().size());
  charge(bytes / 256);
  const int64_t n = length_of(v);
  if (n != bytes) charge(bytes / 16);
  return n;
}

Value Interp::get_attribute(const Value& object, const Value& name) {
  const std::string_view n = name.str();
  switch (object.type()) {
    case Type::kUndefined:
      raise(undefined_text(object));
    case Type::kNamespace: {
      const Value* found = object.as<NamespaceObj>()->attributes.find(n);
      return found != nullptr ? *found : Value::undefined(name, Type::kNamespace);
    }
    case Type::kLoop:
      if (n == "cycle" || n == "changed") return bound_method(object, name);
      return loop_attribute(*object.as<LoopObj>(), find_loop_field(n), name);
    case Type::kCycler:
      if (n == "current") {
        const auto* cycler = object.as<CyclerObj>();
        return cycler->items[cycler->at];
      }
      break;
    case Type::kMacro:
      if (n == "name") return object.as<MacroObj>()->def->name;
      break;
    case Type::kTuple: {
      const auto* t = object.as<ListObj>();
      if (t->first_name.is_str() && t->first_name.str() == n) return t->items[0];
      if (t->second_name.is_str() && t->second_name.str() == n) return t->items[1];
      break;
    }
    default:
      break;
  }
  if (has_method(object.type(), n)) {
    if (!is_mutating(object.type(), n)) return bound_method(object, name);
    return Value::undefined_message(fmt::format(
        "access to attribute '{}' of '{}' object is unsafe.", n, type_name(object.type())));
  }
  if (n.starts_with("__")) {
    return Value::undefined_message(fmt::format(
        "access to attribute '{}' of '{}' object is unsafe.", n, type_name(object.type())));
  }
  if (object.is_dict()) {
    if (const Value* found = object.as<DictObj>()->find(n)) return *found;
  }
  return Value::undefined(name, object.type());
}

}  // namespace lorry::jinja
