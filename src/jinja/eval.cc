// Expressions.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "jinja/interp.h"
#include "jinja/unicode.h"

namespace lorry::jinja {

// Of what peek() does not find.
Value Interp::compute(const Expr& e) {
  line_ = e.line;
  if (e.kind == ExprKind::kName) return Value::undefined(e.value);
  deeper();
  Value v = eval_at_depth(e);
  --depth_;
  return v;
}

const Value* Interp::find_name(const Expr& e) const {
  for (const SlotRef& ref : e.slots) {
    const Frame* frame = frame_;
    for (int i = 0; i < ref.hops; ++i) frame = frame->parent;
    const Value& v = frame->slots[static_cast<size_t>(ref.slot)];
    if (!v.is_missing()) return &v;
  }
  if (e.global < 0) return nullptr;
  const Value& v = globals_[static_cast<size_t>(e.global)];
  return v.is_missing() ? nullptr : &v;
}

const Value* Interp::peek_under(const Expr& e) {
  switch (e.kind) {
    case ExprKind::kName:
      return find_name(e);
    case ExprKind::kAttribute: {
      const Value* object = peek(*e.a);
      if (object == nullptr) return nullptr;
      const DictObj* keys = nullptr;
      if (object->is_dict() && e.only_a_key) keys = object->as<DictObj>();
      if (object->is(Type::kNamespace)) keys = &object->as<NamespaceObj>()->attributes;
      if (keys == nullptr) return nullptr;
      charge(1);
      line_ = e.line;
      return keys->find(e.value.str());
    }
    case ExprKind::kItem: {
      const Value* object = e.b->kind == ExprKind::kConst ? peek(*e.a) : nullptr;
      if (object == nullptr) return nullptr;
      charge(1);
      line_ = e.line;
      if (object->is_dict()) return object->as<DictObj>()->find(e.b->value);
      if (!object->is_list() || !e.b->value.is(Type::kInt)) return nullptr;
      const auto& items = object->items();
      const auto i = static_cast<size_t>(e.b->value.as_int());
      return i < items.size() ? &items[i] : nullptr;
    }
    default:
      return nullptr;
  }
}

// A value where it stands if it stands somewhere, else in `room`. Good until something else is
// evaluated.
const Value& Interp::look(const Expr& e, Value& room) {
  if (const Value* there = peek(e)) return *there;
  room = compute(e);
  return room;
}

// truthy(eval(e)).
bool Interp::holds(const Expr& e) {
  deeper();
  bool out = false;
  switch (e.kind) {
    case ExprKind::kNot:
      out = !holds(*e.a);
      break;
    case ExprKind::kAnd:
      out = holds(*e.a) && holds(*e.b);
      break;
    case ExprKind::kOr:
      out = holds(*e.a) || holds(*e.b);
      break;
    case ExprKind::kCompare:
      out = eval_compare(e);
      break;
    case ExprKind::kTest:
      out = eval_test(e);
      break;
    default: {
      Value room;
      out = truthy(look(e, room));
    }
  }
  --depth_;
  return out;
}

// Appends what an expression gives to the output; of a sum of strings each by itself.
void Interp::print(const Expr& e) {
  Value room;
  deeper();
  if (e.kind == ExprKind::kAdd) {
    if (!print_sum(e, room)) append_str(room, *out_);
  } else if (e.kind == ExprKind::kConditional && e.c) {
    print(holds(*e.a) ? *e.b : *e.c);
  } else if (e.kind == ExprKind::kConcat) {
    for (const auto& arg : e.args) print(*arg);
  } else {
    append_str(look(e, room), *out_);
  }
  --depth_;
}

// True: the sum is a str and was appended to the output. False: it is in `sum`.
bool Interp::print_sum(const Expr& e, Value& sum) {
  const auto is_plain = [](const Value& v) { return v.is_str() && !v.is_markup(); };
  const size_t begin = out_->size();
  bool printed = true;  // what was added up so far
  for (const auto& arg : e.args) {
    charge(1);
    Value room;
    const Value& term = look(*arg, room);
    line_ = e.line;
    if (printed && is_plain(term)) {
      emit(term.str());
    } else if (&arg == &e.args.front()) {
      printed = false;
      sum = term;
    } else {
      if (printed) sum = taken_back(begin);
      printed = false;
      sum = add(sum, term);
    }
  }
  return printed;
}

Value Interp::eval_at_depth(const Expr& e) {
  switch (e.kind) {
    case ExprKind::kConst:
    case ExprKind::kName:
    case ExprKind::kNamespaceRef:
      return e.value;
    case ExprKind::kAttribute:
      return eval_attribute(e);
    case ExprKind::kItem:
      return eval_item(e);
    case ExprKind::kSlice:
      raise("a slice stands alone");
    case ExprKind::kList:
    case ExprKind::kTuple: {
      std::vector<Value> items;
      items.reserve(e.args.size());
      for (const auto& arg : e.args) items.push_back(eval(*arg));
      return e.kind == ExprKind::kList ? Value::list(std::move(items))
                                       : Value::tuple(std::move(items));
    }
    case ExprKind::kDict: {
      auto* dict = new DictObj;
      Value out = Value::object(Type::kDict, dict);
      for (size_t i = 0; i < e.args.size(); i += 2) {
        Value key = eval(*e.args[i]);
        if (key.is_list() || key.is_dict()) {
          raise(fmt::format("unhashable type: '{}'", type_name(key.type())));
        }
        dict->set(std::move(key), eval(*e.args[i + 1]));
      }
      return out;
    }
    case ExprKind::kNot:
      return Value::boolean(!holds(*e.a));
    case ExprKind::kAnd: {
      Value left = eval(*e.a);
      return truthy(left) ? eval(*e.b) : left;
    }
    case ExprKind::kOr: {
      Value left = eval(*e.a);
      return truthy(left) ? left : eval(*e.b);
    }
    case ExprKind::kAdd:
      return eval_sum(e);
    case ExprKind::kConcat:
      return eval_concat(e);
    case ExprKind::kCompare:
      return Value::boolean(eval_compare(e));
    case ExprKind::kConditional:
      if (holds(*e.a)) return eval(*e.b);
      if (e.c) return eval(*e.c);
      return Value::undefined_message(
          "the inline if-expression evaluated to false and no else section was defined");
    case ExprKind::kCall:
      return eval_call(e);
    case ExprKind::kFilter:
      return eval_filter(e);
    case ExprKind::kTest:
      return Value::boolean(eval_test(e));
    default:
      return eval_arithmetic(e);
  }
}

// What was printed from `begin` on becomes a string and is no longer part of the output.
Value Interp::taken_back(size_t begin) {
  Value text = make_string(out_->substr(begin));
  out_->resize(begin);
  return text;
}

// Strings are added up at the end of the output, which has room.
Value Interp::eval_sum(const Expr& e) {
  const size_t begin = out_->size();
  Value sum;
  return print_sum(e, sum) ? taken_back(begin) : sum;
}

Value Interp::eval_concat(const Expr& e) {
  const size_t begin = out_->size();
  for (const auto& arg : e.args) {
    print(*arg);
    check_size(out_->size());
  }
  return taken_back(begin);
}

namespace {

bool has_args(const Expr& e) {
  return !e.args.empty() || !e.kwargs.empty() || e.star_args || e.star_kwargs;
}

}  // namespace

Value Interp::eval_filter(const Expr& e) {
  if (e.filter == nullptr) raise(fmt::format("there is no filter '{}'", e.value.str()));
  CallArgs args;
  if (e.a && !has_args(e)) {
    Value room;
    const Value& input = look(*e.a, room);
    line_ = e.line;
    charge_text(input);
    return e.filter(*this, input, args);
  }
  const Value input = e.a ? eval(*e.a) : std::move(filter_input_);
  eval_args(e, args);
  line_ = e.line;
  charge_text(input);
  return e.filter(*this, input, args);
}

bool Interp::eval_test(const Expr& e) {
  if (e.test == nullptr) raise(fmt::format("there is no test '{}'", e.value.str()));
  CallArgs args;
  if (!has_args(e)) {
    Value room;
    return e.test(*this, look(*e.a, room), args);
  }
  const Value input = eval(*e.a);
  eval_args(e, args);
  return e.test(*this, input, args);
}

bool Interp::eval_compare(const Expr& e) {
  Value left_room, right_room;
  const Expr& second = *e.args.front();
  if (e.ops.size() == 1) {
    const bool stays = second.kind == ExprKind::kConst || second.kind == ExprKind::kName;
    if (!stays) left_room = eval(*e.a);
    const Value& left = stays ? look(*e.a, left_room) : left_room;
    const Value& right = look(second, right_room);
    line_ = e.line;
    const CompareOp op = e.ops.front();
    if (left.is_str() && right.is_str() && right.str().size() <= 16 &&
        (op == CompareOp::kEq || op == CompareOp::kNe)) {
      return same_text(left.str(), right.str()) == (op == CompareOp::kEq);
    }
    return compare_by(op, left, right);
  }
  Value left = eval(*e.a);
  for (size_t i = 0; i < e.ops.size(); ++i) {
    Value right = eval(*e.args[i]);
    line_ = e.line;
    if (!compare_by(e.ops[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

bool Interp::compare_by(CompareOp op, const Value& left, const Value& right) {
  switch (op) {
    case CompareOp::kEq:
      return equals(left, right);
    case CompareOp::kNe:
      return !equals(left, right);
    case CompareOp::kLt:
      return compare(left, right, "<") == -1;
    case CompareOp::kGt:
      return compare(left, right, ">") == 1;
    case CompareOp::kLe: {
      const int c = compare(left, right, "<=");
      return c == -1 || c == 0;
    }
    case CompareOp::kGe: {
      const int c = compare(left, right, ">=");
      return c == 1 || c == 0;
    }
    case CompareOp::kIn:
      return contains(right, left);
    case CompareOp::kNotIn:
      break;
  }
  return !contains(right, left);
}

bool Interp::contains(const Value& container, const Value& item) {
  switch (container.type()) {
    case Type::kStr:
      if (!item.is_str()) {
        raise(fmt::format("'in <string>' requires string as left operand, not {}",
                          type_name(item.type())));
      }
      charge(static_cast<int64_t>(container.str().size() / 64));
      return find_text(container.str(), item.str()) != std::string_view::npos;
    case Type::kDict:
      if (item.is_list() || item.is_dict()) {
        raise(fmt::format("unhashable type: '{}'", type_name(item.type())));
      }
      return container.as<DictObj>()->find(item) != nullptr;
    case Type::kUndefined:
      return false;
    default:
      if (!is_iterable(container)) {
        raise(fmt::format("argument of type '{}' is not iterable", type_name(container.type())));
      }
      const Value all = elements(container);
      for (const Value& v : all.items()) {
        if (equals(v, item)) return true;
      }
      return false;
  }
}

Value Interp::eval_call(const Expr& e) {
  CallArgs args;
  if (e.a->kind == ExprKind::kAttribute) {  // object.method(...), without making the method a value
    const Value object = eval(*e.a->a);
    const std::string_view name = e.a->value.str();
    if (object.is_str() && e.a->str_method != nullptr) {
      charge(1);
      eval_args(e, args);
      line_ = e.line;
      return call_str_method(*this, e.a->str_method, object, args);
    }
    if (has_method(object.type(), name) && !is_mutating(object.type(), name)) {
      eval_args(e, args);
      line_ = e.line;
      return call_method(object, name, args);
    }
    const Value callee = get_attribute(object, e.a->value);
    eval_args(e, args);
    return call(callee, args);
  }
  const Value callee = eval(*e.a);
  eval_args(e, args);
  line_ = e.line;
  return call(callee, args);
}

}  // namespace lorry::jinja
