// Statements, scopes and calls.
#include "jinja/interp.h"

#include <fmt/format.h>

#include <algorithm>

namespace lorry::jinja {

namespace {

Frame* as_frame(const Value& v) { return v.as<Frame>(); }

// Frames and the like travel as Values of a type that no template can name.
Value hold(Obj* obj) { return Value::object(Type::kMacro, obj); }

}  // namespace

Interp::~Interp() {
  meter_.max_work = meter_.max_bytes = INT64_MAX;  // nothing is limited between renders
  for (const Value& ns : namespaces_) {
    auto* obj = ns.as<NamespaceObj>();
    DictObj::Items items;
    obj->attributes.index.reset();
    items.swap(obj->attributes.items);
  }
  for (const Value& frame : frames_) {
    Frame::Slots slots;
    slots.swap(as_frame(frame)->slots);
  }
}

std::string Interp::render(const std::vector<std::pair<std::string_view, const Json*>>& variables) {
  meter_ = {0, 0, 0, limits_.steps, limits_.memory};
  globals_.reserve(template_.globals.size());
  for (const auto& global : template_.globals) globals_.push_back(global.builtin);
  for (size_t i = variables.size(); i-- > 0;) {  // of two with one name the first counts
    const auto place = template_.global_places.find(variables[i].first);
    if (place == template_.global_places.end()) continue;
    globals_[place->second] = from_json(*variables[i].second);
  }
  auto* frame = new Frame;
  frames_.push_back(hold(frame));
  frame->slots.resize(static_cast<size_t>(template_.n_slots), Value::missing());
  frame_ = frame;
  // Grown once for all conversations of a thread, and not kept if one was unusually long.
  static thread_local std::string buffer;
  constexpr size_t kMaxKept = size_t{1} << 20;
  output_.swap(buffer);
  output_.clear();
  out_ = &output_;
  run(template_.body);
  if (output_.size() > kMaxKept) return std::move(output_);
  std::string text = output_;
  output_.swap(buffer);
  return text;
}

Value Interp::make_string(std::string s) {
  check_size(s.size());
  charge(static_cast<int64_t>(s.size() / 64));
  return Value::string(std::move(s));
}

Value Interp::make_markup(std::string s) {
  check_size(s.size());
  charge(static_cast<int64_t>(s.size() / 64));
  return Value::markup(std::move(s));
}

Value Interp::elements(const Value& value) {
  // Before they are made.
  if (value.is_str()) charge(static_cast<int64_t>(value.str().size()));
  if (value.is(Type::kView)) charge(4 * length_of(value));
  Value out = iterate(value);
  charge(static_cast<int64_t>(out.items().size()));
  return out;
}

Interp::Flow Interp::run(const std::vector<StmtPtr>& body) {
  for (const auto& s : body) {
    if (const Flow flow = run(*s); flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interp::Flow Interp::run(const Stmt& s) {
  charge(1);
  switch (s.kind) {
    case StmtKind::kText:
      emit(s.text.str());
      return Flow::kNext;
    case StmtKind::kOutput:
      for (const auto& e : s.exprs) print(*e);
      check_size(out_->size());
      return Flow::kNext;
    case StmtKind::kIf:
      for (size_t i = 0; i < s.exprs.size(); ++i) {
        if (holds(*s.exprs[i])) return run(s.branches[i]);
      }
      if (s.branches.size() > s.exprs.size()) return run(s.branches.back());
      return Flow::kNext;
    case StmtKind::kFor:
      return run_for(s, eval(*s.a), 0);
    case StmtKind::kSet:
    case StmtKind::kSetBlock:
    case StmtKind::kMacro:
      run_set(s);
      return Flow::kNext;
    case StmtKind::kCall:
      run_call_block(s);
      return Flow::kNext;
    case StmtKind::kFilter: {
      clear_slots(s.slot_begin, s.slot_end);
      Flow flow = Flow::kNext;
      filter_input_ = make_string(capture(s.body, &flow));
      append_str(eval(*s.a), *out_);
      return flow;
    }
    case StmtKind::kWith: {
      std::vector<Value> values;
      for (const auto& e : s.exprs) values.push_back(eval(*e));
      clear_slots(s.slot_begin, s.slot_end);
      for (size_t i = 0; i < values.size(); ++i) assign(*s.targets[i], std::move(values[i]));
      return run(s.body);
    }
    case StmtKind::kScope:
      clear_slots(s.slot_begin, s.slot_end);
      return run(s.body);
    case StmtKind::kGeneration:
      return run_generation(s);
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

void Interp::clear_slots(int begin, int end) {
  charge((end - begin) / 16);
  for (int i = begin; i < end; ++i) {
    Value& slot = frame_->slots[static_cast<size_t>(i)];
    if (!slot.is_missing()) slot = Value::missing();
  }
}

// The elements for which the loop's `if` holds.
Value Interp::filtered(const Stmt& s, const Value& items) {
  std::vector<Value> kept;
  for (const Value& item : items.items()) {
    clear_slots(s.slot_begin, s.slot_end);
    assign(*s.target, item);
    if (truthy(eval(*s.b))) kept.push_back(item);
  }
  return Value::list(std::move(kept));
}

Interp::Flow Interp::run_for(const Stmt& s, const Value& iterable, int depth0) {
  Value items = elements(iterable);
  // Without `loop` nobody can look ahead, and the test sees what the body did before.
  const bool test_as_we_go = s.b != nullptr && s.loop_slot < 0;
  if (s.b != nullptr && !test_as_we_go) items = filtered(s, items);
  LoopObj* loop = nullptr;
  Value loop_value;
  if (s.loop_slot >= 0) {
    loop = new LoopObj;
    loop_value = Value::object(Type::kLoop, loop);
    loop->items = items;
    loop->depth = depth_above(items);
    loop->depth0 = depth0;
    if (s.recursive) loop->recursive = &s;
    if (s.recursive) loop->frame = hold(frame_);
  }
  bool ran = false;
  int64_t index = 0;
  for (const Value& item : items.items()) {
    charge(1);
    clear_slots(s.slot_begin, s.slot_end);
    assign(*s.target, item);
    if (test_as_we_go && !truthy(eval(*s.b))) continue;
    ran = true;
    if (loop != nullptr) {
      loop->index0 = index++;
      frame_->slots[static_cast<size_t>(s.loop_slot)] = loop_value;
    }
    if (run(s.body) == Flow::kBreak) break;
  }
  clear_slots(s.slot_begin, s.slot_end);
  if (!ran && !s.branches.empty()) return run(s.branches.front());
  return Flow::kNext;
}

void Interp::run_set(const Stmt& s) {
  if (s.kind == StmtKind::kSet) return assign(*s.target, eval(*s.a));
  if (s.kind == StmtKind::kMacro) {
    auto* macro = new MacroObj;
    Value value = Value::object(Type::kMacro, macro);
    macro->def = s.macro.get();
    macro->closure = hold(frame_);
    return assign(*s.target, std::move(value));
  }
  clear_slots(s.slot_begin, s.slot_end);
  Value value = make_string(capture(s.body));
  if (s.a) {
    filter_input_ = std::move(value);
    value = eval(*s.a);
  }
  assign(*s.target, std::move(value));
}

void Interp::run_call_block(const Stmt& s) {
  auto* caller = new MacroObj;
  Value value = Value::object(Type::kMacro, caller);
  caller->def = s.macro.get();
  caller->closure = hold(frame_);
  static const Value kName = [] {
    auto* name = new StrObj(std::string("caller"));
    name->refs = -1;
    return Value::object(Type::kStr, name);
  }();
  CallArgs args;
  const Value callee = eval(*s.a->a);
  eval_args(*s.a, args);
  args.named.emplace_back(kName, std::move(value));
  append_str(call(callee, args), *out_);
  check_size(out_->size());
}

Interp::Flow Interp::run_generation(const Stmt& s) {
  clear_slots(s.slot_begin, s.slot_end);
  const size_t begin = out_->size();
  const Flow flow = run(s.body);
  if (out_ == &output_) {
    generation_.emplace_back(begin, out_->size());
  } else {
    generation_lost_ = true;
  }
  return flow;
}

std::string Interp::capture(const std::vector<StmtPtr>& body, Flow* flow) {
  std::string text;
  std::string* outer = std::exchange(out_, &text);
  const Flow ended = run(body);
  out_ = outer;
  if (flow != nullptr) *flow = ended;
  return text;
}

void Interp::assign(const Expr& target, Value value) {
  if (target.kind == ExprKind::kName) {
    frame_->slots[static_cast<size_t>(target.slots.front().slot)] = std::move(value);
    return;
  }
  if (target.kind == ExprKind::kNamespaceRef) {
    const Value ns = eval(*target.a);
    require_defined(ns);
    if (!ns.is(Type::kNamespace)) raise("cannot assign attribute on non-namespace object");
    if (target.value.str().starts_with('_')) {
      raise("chat templates cannot store underscore-prefixed attributes on a namespace");
    }
    ns.as<NamespaceObj>()->attributes.set(target.value, std::move(value));
    return;
  }
  if (!is_iterable(value)) {
    raise(fmt::format("cannot unpack non-iterable {} object", type_name(value.type())));
  }
  const Value parts = elements(value);
  const size_t wanted = target.args.size();
  const size_t got = parts.items().size();
  if (got > wanted) raise(fmt::format("too many values to unpack (expected {})", wanted));
  if (got < wanted) {
    raise(fmt::format("not enough values to unpack (expected {}, got {})", wanted, got));
  }
  for (size_t i = 0; i < wanted; ++i) assign(*target.args[i], parts.items()[i]);
}

// ---- calls

void CallArgs::bind(std::string_view function, std::initializer_list<std::string_view> names,
                    std::initializer_list<Value*> into) {
  if (positional.size() > names.size()) {
    raise(fmt::format("{}() takes at most {} arguments ({} given)", function, names.size(),
                      positional.size()));
  }
  for (Value* v : into) *v = Value::missing();
  if (empty()) return;
  for (size_t i = 0; i < positional.size(); ++i) *into.begin()[i] = positional[i];
  for (const auto& [name, value] : named) {
    const auto* at = std::find(names.begin(), names.end(), name.str());
    if (at == names.end()) {
      raise(fmt::format("{}() got an unexpected keyword argument '{}'", function, name.str()));
    }
    Value& slot = *into.begin()[at - names.begin()];
    if (!slot.is_missing()) {
      raise(fmt::format("{}() got multiple values for argument '{}'", function, name.str()));
    }
    slot = value;
  }
}

void Interp::eval_args(const Expr& e, CallArgs& args) {
  args.positional.reserve(e.args.size());
  for (const auto& arg : e.args) args.positional.push_back(eval(*arg));
  for (const auto& [name, arg] : e.kwargs) args.named.emplace_back(name, eval(*arg));
  if (e.star_args) {
    const Value more = elements(eval(*e.star_args));
    args.positional.insert(args.positional.end(), more.items().begin(), more.items().end());
  }
  if (!e.star_kwargs) return;
  const Value more = eval(*e.star_kwargs);
  if (!more.is_dict()) raise("argument after ** must be a mapping");
  for (const auto& [key, value] : more.as<DictObj>()->items) {
    if (!key.is_str()) raise("keywords must be strings");
    args.named.emplace_back(key, value);
  }
}

Value Interp::call(const Value& callee, CallArgs& args) {
  charge(1);
  switch (callee.type()) {
    case Type::kMacro:
      return call_macro(*callee.as<MacroObj>(), args);
    case Type::kFunction:
      return callee.as<FunctionObj>()->fn(*this, args);
    case Type::kMethod: {
      const auto* method = callee.as<MethodObj>();
      return call_method(method->self, method->name.str(), args);
    }
    case Type::kLoop:
      return call_loop(*callee.as<LoopObj>(), args);
    case Type::kJoiner: {
      auto* joiner = callee.as<JoinerObj>();
      return std::exchange(joiner->used, true) ? joiner->separator : Value::string("");
    }
    case Type::kUndefined:
      raise(undefined_text(callee));
    default:
      raise(fmt::format("'{}' object is not callable", type_name(callee.type())));
  }
}

namespace {

std::string macro_name(const MacroDef& def) {
  return def.name.is_str() ? fmt::format("'{}'", def.name.str()) : "None";
}

// Takes a keyword argument out of `args`; missing if it is not there.
Value take_named(CallArgs& args, std::string_view name) {
  for (auto it = args.named.begin(); it != args.named.end(); ++it) {
    if (it->first.str() != name) continue;
    Value value = std::move(it->second);
    args.named.erase(it);
    return value;
  }
  return Value::missing();
}

// Puts arguments into the slots of a macro's frame, as jinja2's Macro.__call__ does.
void bind_macro(const MacroDef& def, CallArgs& args, Frame::Slots& slots) {
  const auto slot = [&](int i) -> Value& { return slots[static_cast<size_t>(i)]; };
  const size_t n = def.params.size();
  for (size_t i = 0; i < n; ++i) {
    const auto& param = def.params[i];
    slot(param.slot) =
        i < args.positional.size() ? args.positional[i] : take_named(args, param.name.str());
  }
  if (def.caller_slot >= 0) {
    Value caller = take_named(args, "caller");
    slot(def.caller_slot) = caller.is_missing() || caller.is_none()
                                ? Value::undefined_message("No caller defined")
                                : std::move(caller);
  }
  if (def.kwargs_slot >= 0) {
    auto* dict = new DictObj;
    slot(def.kwargs_slot) = Value::object(Type::kDict, dict);
    for (auto& [name, value] : args.named) dict->set(name, value);
  } else if (!args.named.empty()) {
    raise(fmt::format("macro {} takes no keyword argument '{}'", macro_name(def),
                      args.named.front().first.str()));
  }
  if (def.varargs_slot >= 0) {
    std::vector<Value> rest;
    for (size_t i = n; i < args.positional.size(); ++i) rest.push_back(args.positional[i]);
    slot(def.varargs_slot) = Value::tuple(std::move(rest));
  } else if (args.positional.size() > n) {
    raise(fmt::format("macro {} takes not more than {} argument(s)", macro_name(def), n));
  }
}

}  // namespace

Value Interp::call_macro(const MacroObj& macro, CallArgs& args) {
  if (++calls_ > limits_.calls) raise("macros call each other too deeply");
  const MacroDef& def = *macro.def;
  charge(def.n_slots / 4 + static_cast<int64_t>(def.params.size() * (4 + args.named.size() / 4)));
  const Value closure = macro.closure;
  auto* frame = new Frame;
  Value held = hold(frame);
  frame->parent = as_frame(closure);
  frame->parent_ref = closure;
  frame->slots.assign(static_cast<size_t>(def.n_slots), Value::missing());
  bind_macro(def, args, frame->slots);
  Frame* outer = std::exchange(frame_, frame);
  for (const auto& param : def.params) {
    Value& slot = frame->slots[static_cast<size_t>(param.slot)];
    if (!slot.is_missing()) continue;
    Value value = param.fallback ? eval(*param.fallback)
                                 : Value::undefined_message(fmt::format(
                                       "parameter '{}' was not provided", param.name.str()));
    frame->slots[static_cast<size_t>(param.slot)] = std::move(value);
  }
  Value text = make_string(capture(def.body));
  frame_ = outer;
  --calls_;
  if (frame->refs > 1) frames_.push_back(held);  // something still points here, maybe in a circle
  return text;
}

Value Interp::call_loop(LoopObj& loop, CallArgs& args) {
  if (loop.recursive == nullptr) {
    raise("the loop must have the 'recursive' marker to be called recursively");
  }
  if (++calls_ > limits_.calls) raise("a recursive loop goes too deep");
  Value iterable;
  args.bind("loop", {"iterable"}, {&iterable});
  if (iterable.is_missing()) raise("loop() needs what to iterate over");
  const Stmt& s = *loop.recursive;
  const Value frame = loop.frame;
  Frame* outer = std::exchange(frame_, as_frame(frame));
  const auto begin = frame_->slots.begin() + s.slot_begin;
  std::vector<Value> saved(begin, frame_->slots.begin() + s.slot_end);
  std::string text;
  std::string* out = std::exchange(out_, &text);
  run_for(s, iterable, loop.depth0 + 1);
  out_ = out;
  std::move(saved.begin(), saved.end(), begin);
  frame_ = outer;
  --calls_;
  return make_string(std::move(text));
}

}  // namespace lorry::jinja
