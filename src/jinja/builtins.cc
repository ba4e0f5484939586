// The global functions of a template, and the methods of everything but str.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>

#include "jinja/interp.h"

namespace lorry::jinja {

namespace {

int64_t need_int(const Value& v) {
  require_defined(v);
  if (!v.is_integral()) {
    raise(fmt::format("'{}' object cannot be interpreted as an integer", type_name(v.type())));
  }
  return v.as_int();
}

Value range(Interp& in, CallArgs& args) {
  constexpr int64_t kMaxRange = 100000;
  if (!args.named.empty()) raise("range() takes no keyword arguments");
  const auto& p = args.positional;
  if (p.empty() || p.size() > 3) raise("range expected 1 to 3 arguments");
  const int64_t start = p.size() > 1 ? need_int(p[0]) : 0;
  const int64_t stop = need_int(p[p.size() > 1 ? 1 : 0]);
  const int64_t step = p.size() > 2 ? need_int(p[2]) : 1;
  if (step == 0) raise("range() arg 3 must not be zero");
  std::vector<Value> items;
  __int128 i = start;
  for (; step > 0 ? i < stop : i > stop; i += step) {
    if (static_cast<int64_t>(items.size()) == kMaxRange) {
      raise("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
    }
    items.push_back(Value::integer(static_cast<int64_t>(i)));
  }
  in.charge(static_cast<int64_t>(items.size()));
  auto* obj = new ListObj(std::move(items));
  obj->start = start;
  obj->stop = stop;
  obj->step = step;
  return Value::object(Type::kRange, obj);
}

// dict(mapping_or_pairs, **named)
Value make_dict(Interp& in, CallArgs& args) {
  auto* dict = new DictObj;
  Value out = Value::object(Type::kDict, dict);
  if (args.positional.size() > 1) raise("dict expected at most 1 argument");
  if (!args.positional.empty()) {
    const Value& source = args.positional[0];
    if (source.is_dict()) {
      in.charge(static_cast<int64_t>(source.as<DictObj>()->items.size() * 8));
      for (const auto& [k, v] : source.as<DictObj>()->items) dict->set(k, v);
    } else {
      const Value pairs = in.elements(source);
      in.charge(static_cast<int64_t>(pairs.items().size() * 8));
      for (const Value& pair : pairs.items()) {
        const Value both = in.elements(pair);
        if (both.items().size() != 2)
          raise("dictionary update sequence element must have length 2");
        dict->set(both.items()[0], both.items()[1]);
      }
    }
  }
  for (const auto& [k, v] : args.named) dict->set(k, v);
  in.charge(static_cast<int64_t>(dict->items.size()));
  return out;
}

Value make_namespace(Interp& in, CallArgs& args) { return in.make_namespace(args); }

Value cycler(Interp&, CallArgs& args) {
  if (args.positional.empty()) raise("at least one item has to be provided");
  auto* obj = new CyclerObj;
  Value out = Value::object(Type::kCycler, obj);
  for (const Value& v : args.positional) obj->depth = std::max(obj->depth, depth_above(v));
  obj->items = args.positional;
  return out;
}

Value joiner(Interp&, CallArgs& args) {
  auto* obj = new JoinerObj;
  Value out = Value::object(Type::kJoiner, obj);
  args.bind("joiner", {"sep"}, {&obj->separator});
  if (obj->separator.is_missing()) obj->separator = Value::string(", ");
  obj->depth = depth_above(obj->separator);
  return out;
}

Value raise_exception(Interp&, CallArgs& args) {
  Value message;
  args.bind("raise_exception", {"message"}, {&message});
  raise(message.is_missing() ? "the template refused the conversation" : to_str(message));
}

struct LocalTime {
  std::tm time{};
  int64_t microseconds = 0;
};

LocalTime time_now() {
  using std::chrono::system_clock;
  const auto now = system_clock::now();
  const auto seconds = system_clock::to_time_t(now);
  LocalTime out;
  localtime_r(&seconds, &out.time);
  out.microseconds = std::chrono::duration_cast<std::chrono::microseconds>(
                         now - system_clock::from_time_t(seconds))
                         .count();
  return out;
}

/// Midnight of a day such as 2025-01-31, with its day of the week and of the year.
LocalTime begin_of(const std::string& day) {
  LocalTime out;
  strptime(day.c_str(), "%Y-%m-%d", &out.time);
  return out;
}

Value strftime_now(Interp& in, CallArgs& args) {
  Value format;
  args.bind("strftime_now", {"format"}, {&format});
  if (!format.is_str()) raise("strftime_now() needs a format");
  constexpr size_t kMaxFormat = 1024;
  if (format.str().size() > kMaxFormat) raise("strftime_now(): the format is too long");
  in.charge(static_cast<int64_t>(10 + format.str().size()));
  const auto [local, micros] = in.day().empty() ? time_now() : begin_of(in.day());
  std::string text(format.str());
  for (size_t at = 0; (at = text.find('%', at)) != std::string::npos && at + 1 < text.size();
       at += 2) {
    if (text[at + 1] == 'f')
      text.replace(at, 2, fmt::format("{:06}", micros));
    else if (text[at + 1] == 'z' || text[at + 1] == 'Z')
      text.replace(at, 2, "");
  }
  in.check_size(text.size() * 8);
  std::string out(text.size() * 8 + 256, '\0');
  out.resize(std::strftime(out.data(), out.size(), text.c_str(), &local));
  return in.make_string(std::move(out));
}

Value function(FunctionFn fn, std::string_view name) {
  auto* obj = new FunctionObj;
  obj->refs = -1;  // shared by all renders, for good
  obj->fn = fn;
  obj->name = name;
  return Value::object(Type::kFunction, obj);
}

Value view(const Value& dict, ViewObj::Kind kind) {
  auto* obj = new ViewObj;
  obj->dict = dict;
  obj->kind = kind;
  obj->depth = depth_above(dict);
  return Value::object(Type::kView, obj);
}

Value dict_method(Interp& in, const Value& self, std::string_view name, CallArgs& args) {
  const auto* dict = self.as<DictObj>();
  if (name == "get") {
    Value key, fallback;
    args.bind("get", {"key", "default"}, {&key, &fallback});
    if (key.is_missing()) raise("get expected at least 1 argument, got 0");
    if (key.is_list() || key.is_dict()) {
      raise(fmt::format("unhashable type: '{}'", type_name(key.type())));
    }
    if (const Value* found = dict->find(key)) return *found;
    return fallback.is_missing() ? Value::none() : fallback;
  }
  if (name == "fromkeys") raise("dict.fromkeys() is not supported in templates");
  if (!args.positional.empty() || !args.named.empty()) {
    raise(fmt::format("dict.{}() takes no arguments", name));
  }
  if (name == "items") return view(self, ViewObj::kItems);
  if (name == "keys") return view(self, ViewObj::kKeys);
  if (name == "values") return view(self, ViewObj::kValues);
  CallArgs copy;
  copy.positional.push_back(self);
  return make_dict(in, copy);
}

Value list_method(Interp& in, const Value& self, std::string_view name, CallArgs& args) {
  if (name == "copy") return slice_value(in, self, Value::none(), Value::none(), Value::none());
  Value what, start, stop;
  args.bind(name, {"value", "start", "stop"}, {&what, &start, &stop});
  if (what.is_missing()) raise(fmt::format("{}() takes exactly one argument (0 given)", name));
  const auto& items = self.items();
  in.charge(static_cast<int64_t>(items.size()));
  if (name == "count") {
    return Value::integer(
        std::count_if(items.begin(), items.end(), [&](const Value& v) { return equals(v, what); }));
  }
  const auto n = static_cast<int64_t>(items.size());
  const auto place = [&](const Value& v, int64_t fallback) {
    const int64_t i = v.is_missing() ? fallback : need_int(v);
    return std::clamp<int64_t>(i < 0 ? i + n : i, 0, n);
  };
  for (int64_t i = place(start, 0); i < place(stop, n); ++i) {
    if (equals(items[static_cast<size_t>(i)], what)) return Value::integer(i);
  }
  raise(fmt::format("{} is not in list", repr(what)));
}

Value loop_method(LoopObj& loop, std::string_view name, CallArgs& args) {
  if (name == "cycle") {
    if (args.positional.empty()) raise("no items for cycling given");
    return args.positional[static_cast<size_t>(loop.index0) % args.positional.size()];
  }
  const Value now = Value::tuple(args.positional);
  if (!loop.last_changed.is_missing() && equals(now, loop.last_changed)) {
    return Value::boolean(false);
  }
  loop.depth = std::max(loop.depth, depth_above(now));
  loop.last_changed = now;
  return Value::boolean(true);
}

Value cycler_method(CyclerObj& cycler, std::string_view name) {
  if (name == "reset") {
    cycler.at = 0;
    return Value::none();
  }
  const Value current = cycler.items[cycler.at];
  cycler.at = (cycler.at + 1) % cycler.items.size();
  return current;
}

}  // namespace

Value find_builtin(std::string_view name) {
  static const std::pair<std::string_view, Value> kFunctions[] = {
      {"range", function(range, "range")},
      {"dict", function(make_dict, "dict")},
      {"namespace", function(jinja::make_namespace, "namespace")},
      {"cycler", function(cycler, "cycler")},
      {"joiner", function(joiner, "joiner")},
      {"raise_exception", function(raise_exception, "raise_exception")},
      {"strftime_now", function(strftime_now, "strftime_now")},
  };
  for (const auto& [known, value] : kFunctions) {
    if (known == name) return value;
  }
  return Value::missing();
}

Value Interp::make_namespace(CallArgs& args) {
  const Value dict = make_dict(*this, args);
  auto* ns = new NamespaceObj;
  Value out = Value::object(Type::kNamespace, ns);
  for (const auto& [k, v] : dict.as<DictObj>()->items) {
    if (k.is_str() && k.str().starts_with('_')) {
      raise("chat templates cannot store underscore-prefixed attributes on a namespace");
    }
    ns->attributes.set(k, v);
  }
  namespaces_.push_back(out);
  charge(20);
  return out;
}

Value Interp::call_method(const Value& self, std::string_view name, CallArgs& args) {
  charge(1);
  switch (self.type()) {
    case Type::kStr:
      return str_method(*this, self, name, args);
    case Type::kDict:
      return dict_method(*this, self, name, args);
    case Type::kList:
    case Type::kTuple:
    case Type::kRange:
      return list_method(*this, self, name, args);
    case Type::kLoop:
      return loop_method(*self.as<LoopObj>(), name, args);
    case Type::kCycler:
      return cycler_method(*self.as<CyclerObj>(), name);
    case Type::kFloat:
      return Value::boolean(std::trunc(self.as_double()) == self.as_double());
    default:
      raise(fmt::format("'{}' object has no method '{}'", type_name(self.type()), name));
  }
}

Value Interp::apply_filter(const Value& name, const Value& input, CallArgs& args) {
  require_defined(name);
  const FilterFn filter = name.is_str() ? find_filter(name.str()) : nullptr;
  if (filter == nullptr) raise(fmt::format("there is no filter {}", repr(name)));
  charge(1);
  charge_text(input);
  return filter(*this, input, args);
}

bool Interp::apply_test(const Value& name, const Value& input, CallArgs& args) {
  require_defined(name);
  const TestFn test = name.is_str() ? find_test(name.str()) : nullptr;
  if (test == nullptr) raise(fmt::format("there is no test {}", repr(name)));
  charge(1);
  return test(*this, input, args);
}

}  // namespace lorry::jinja
