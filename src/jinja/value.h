// Values of the template language: Python's, as far as chat templates see them.
//
// A Value is 16 bytes and counts references without atomics: values live inside one render, on one
// thread. Constants of a parsed template are shared between renders and are therefore immortal
// (their count is never touched). Strings of the context are looked at, not copied.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>  // memcmp
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/json.h"

namespace lorry::jinja {

enum class Type : uint8_t {
  kMissing,  ///< an unset variable slot; never reaches a template
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kStr,
  kList,
  kTuple,
  kDict,
  kNamespace,
  kRange,
  kGenerator,  ///< what select, map, ... give: can be run through once
  kView,       ///< dict.keys(), values(), items()
  kMacro,
  kFunction,  ///< range, namespace, raise_exception, ...
  kMethod,    ///< "text".strip without the call
  kLoop,
  kCycler,
  kJoiner,
};

/// Raised inside the engine; ChatTemplate turns it into an Error with the line.
struct TemplateError {
  std::string message;
  int line = 0;  ///< 0: not known yet
};
[[noreturn]] void raise(std::string message);

/// What the render of this thread has cost so far. Values count the memory that they hold, and what
/// goes through whole values counts its work; Interp sets the limits.
struct Meter {
  int64_t work = 0;    ///< expressions, iterations, elements looked at, 64 bytes of text each
  int64_t bytes = 0;   ///< held by values now
  int namespaces = 0;  ///< nested in each other where one is printed
  int64_t max_work = INT64_MAX;
  int64_t max_bytes = INT64_MAX;

  /// Counts work; raises when there was too much, or values hold too much.
  void charge(int64_t more) {
    work += more;
    if (work > max_work || bytes > max_bytes) fail();
  }

 private:
  [[noreturn]] void fail() const;
};
inline constinit thread_local Meter meter;

/// Freed memory of one thread in blocks of one size; each block begins with a pointer to the next.
struct FreeList {
  static constexpr size_t kStep = 16, kSizes = 12;
#if defined(__SANITIZE_ADDRESS__)
  static constexpr int kKept = 0;  // every object is to be watched by itself
#else
  static constexpr int kKept = 256;
#endif

  void* first = nullptr;
  int count = 0;

  void* take() {
    --count;
    return std::exchange(first, *static_cast<void**>(first));
  }
  void give(void* memory) {
    ++count;
    *static_cast<void**>(memory) = std::exchange(first, memory);
  }
};
inline constinit thread_local std::array<FreeList, FreeList::kSizes> free_lists;

void* allocate_fresh(size_t bytes);
/// Memory of this thread's list for this size, if the size has one with something in it.
inline void* allocate_pooled(size_t bytes) {
  const size_t i = (bytes + FreeList::kStep - 1) / FreeList::kStep;
  if (i >= FreeList::kSizes || free_lists[i].first == nullptr) return allocate_fresh(bytes);
  return free_lists[i].take();
}
inline void free_pooled(void* memory, size_t bytes) {
  const size_t i = (bytes + FreeList::kStep - 1) / FreeList::kStep;
  if (i >= FreeList::kSizes || free_lists[i].count >= FreeList::kKept)
    return ::operator delete(memory);
  free_lists[i].give(memory);
}

/// Allocator of such memory.
template <typename T>
struct Pooled {
  using value_type = T;
  Pooled() = default;
  template <typename U>
  Pooled(const Pooled<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(allocate_pooled(n * sizeof(T))); }
  void deallocate(T* memory, size_t n) { free_pooled(memory, n * sizeof(T)); }
  bool operator==(const Pooled&) const = default;
};

/// Nesting of lists in lists and the like, so that no recursion over a value is deep.
inline constexpr int kMaxValueDepth = 400;

struct Obj {
  int32_t refs = 0;  ///< negative: immortal
  int16_t depth = 1;
  Obj() = default;
  Obj(const Obj&) = delete;
  Obj& operator=(const Obj&) = delete;
  virtual ~Obj() = default;

  /// A render makes and drops many small objects: each thread keeps the memory of some for the
  /// next.
  static void* operator new(size_t bytes) {
    meter.bytes += static_cast<int64_t>(bytes);
    return allocate_pooled(bytes);
  }
  static void operator delete(void* memory, size_t bytes) {
    meter.bytes -= static_cast<int64_t>(bytes);
    free_pooled(memory, bytes);
  }
};

struct StrObj;
struct ListObj;
struct DictObj;

/// a == b, without a call for strings as short as the keys and roles of messages.
inline bool same_text(std::string_view a, std::string_view b) {
  const size_t n = a.size();
  if (n != b.size()) return false;
  const auto differ = [&]<typename Word>(size_t at, Word) {
    Word x, y;
    std::memcpy(&x, a.data() + at, sizeof x);
    std::memcpy(&y, b.data() + at, sizeof y);
    return x != y;
  };
  if (n > 16) return std::memcmp(a.data(), b.data(), n) == 0;
  if (n >= 8) return !differ(0, uint64_t{}) && !differ(n - 8, uint64_t{});
  if (n >= 4) return !differ(0, uint32_t{}) && !differ(n - 4, uint32_t{});
  for (size_t i = 0; i < n; ++i) {
    if (a[i] != b[i]) return false;
  }
  return true;
}

class Value {
 public:
  Value() : Value(Type::kUndefined) {}
  Value(const Value& o) : tag_(o.tag_), u_(o.u_) { retain(); }
  Value(Value&& o) noexcept : tag_(o.tag_), u_(o.u_) {
    o.tag_ = {Type::kMissing};
    o.u_.obj = nullptr;
  }
  Value& operator=(Value o) noexcept {
    std::swap(tag_, o.tag_);
    std::swap(u_, o.u_);
    return *this;
  }
  ~Value() { release(); }

  static Value none() { return Value(Type::kNone); }
  static Value missing() { return Value(Type::kMissing); }
  static Value boolean(bool b) {
    Value v(Type::kBool);
    v.u_.i = b;
    return v;
  }
  static Value integer(int64_t i) {
    Value v(Type::kInt);
    v.u_.i = i;
    return v;
  }
  static Value real(double d) {
    Value v(Type::kFloat);
    v.u_.d = d;
    return v;
  }
  /// Takes a share of `obj`.
  static Value object(Type type, Obj* obj) {
    Value v(type);
    v.hold(obj);
    return v;
  }
  static Value string(std::string s);
  /// The string of one byte: a character of ASCII, which all share, or one that is no UTF-8.
  static Value byte(char c);
  /// A string that stands elsewhere and outlives the render: nothing is allocated.
  static Value borrowed(const std::string& s) {
    Value v(Type::kStr);
    v.tag_.keep = Keep::kBorrowed;
    v.u_.text = &s;
    return v;
  }
  static Value markup(std::string s);
  static Value list(std::vector<Value> items);
  static Value tuple(std::vector<Value> items);
  static Value generator(std::vector<Value> items);
  /// "x is undefined"; `owner` kMissing for a variable, else the type that has no such attribute.
  static Value undefined(const Value& name, Type owner = Type::kMissing);
  /// Undefined with its whole sentence.
  static Value undefined_message(std::string message);

  Type type() const { return tag_.type; }
  bool is(Type t) const { return tag_.type == t; }
  bool is_undefined() const { return tag_.type == Type::kUndefined; }
  bool is_missing() const { return tag_.type == Type::kMissing; }
  bool is_none() const { return tag_.type == Type::kNone; }
  bool is_str() const { return tag_.type == Type::kStr; }
  bool is_list() const { return tag_.type == Type::kList; }
  bool is_dict() const { return tag_.type == Type::kDict; }
  /// bool counts as a number, as in Python.
  bool is_integral() const { return tag_.type == Type::kInt || tag_.type == Type::kBool; }
  bool is_number() const { return is_integral() || tag_.type == Type::kFloat; }
  bool is_sequence_obj() const {
    return tag_.type == Type::kList || tag_.type == Type::kTuple || tag_.type == Type::kRange;
  }

  bool as_bool() const { return u_.i != 0; }
  int64_t as_int() const { return u_.i; }
  double as_double() const { return tag_.type == Type::kFloat ? u_.d : static_cast<double>(u_.i); }
  Obj* obj() const { return u_.obj; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(u_.obj);
  }
  inline std::string_view str() const;
  inline const std::vector<Value>& items() const;
  bool is_borrowed() const { return tag_.keep == Keep::kBorrowed; }
  inline bool is_markup() const;
  uint8_t aux() const { return tag_.aux; }
  void set_aux(uint8_t aux) { tag_.aux = aux; }

 private:
  explicit Value(Type t) : tag_{t} { u_.obj = nullptr; }
  /// What is to be done about the memory that `u_` points to.
  enum class Keep : uint8_t { kNothing, kCounted, kBorrowed };
  void hold(Obj* obj) {
    u_.obj = obj;
    if (obj->refs < 0) return;
    tag_.keep = Keep::kCounted;
    ++obj->refs;
  }
  void retain() const {
    if (tag_.keep == Keep::kCounted) ++u_.obj->refs;
  }
  void release() {
    if (tag_.keep == Keep::kCounted && --u_.obj->refs == 0) delete u_.obj;
  }

  struct alignas(4) Tag {
    Type type;
    uint8_t aux = 0;
    Keep keep = Keep::kNothing;
  };

  Tag tag_;
  union {
    int64_t i;
    double d;
    Obj* obj;
    const std::string* text;  ///< of a borrowed string
  } u_;
};

struct StrObj : Obj {
  std::string own;
  std::string_view view;
  bool markup = false;  ///< made by `safe` or `escape`
  int8_t ascii = -1;    ///< 1, 0, or -1 for not looked yet
  explicit StrObj(std::string s) : own(std::move(s)), view(own) { count(1); }
  ~StrObj() override { count(-1); }
  void append(std::string_view more) {
    count(-1);
    own += more;
    view = own;
    ascii = -1;
    count(1);
  }

 private:
  void count(int sign) const { meter.bytes += sign * static_cast<int64_t>(own.capacity()); }
};

/// Lists, tuples, ranges, and generators (which are emptied by being run through).
struct ListObj : Obj {
  std::vector<Value> items;
  Value first_name, second_name;          ///< names of a groupby tuple's fields, else undefined
  int64_t start = 0, stop = 0, step = 1;  ///< of a range
  explicit ListObj(std::vector<Value> v);
  ~ListObj() override { meter.bytes -= counted_; }

 private:
  int64_t counted_ = 0;
};

struct DictObj : Obj {
  ~DictObj() override { meter.bytes -= kEntryBytes * static_cast<int64_t>(items.size()); }
  using Items = std::vector<std::pair<Value, Value>, Pooled<std::pair<Value, Value>>>;
  Items items;
  /// Places of string keys, once there are many.
  std::unique_ptr<std::unordered_map<std::string_view, size_t>> index;

  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  /// Inserts or replaces; the key keeps its place.
  void set(Value key, Value value);

 private:
  static constexpr int64_t kEntryBytes = 64;
  void add_to_index(size_t first);
  friend Value from_json(const Json& json, int depth);
};

/// A namespace() object: the one thing a template can change.
struct NamespaceObj : Obj {
  DictObj attributes;
};

struct ViewObj : Obj {
  Value dict;
  enum Kind { kKeys, kValues, kItems } kind = kKeys;
};

inline std::string_view Value::str() const {
  return tag_.keep == Keep::kBorrowed ? std::string_view(*u_.text) : as<StrObj>()->view;
}
inline const std::vector<Value>& Value::items() const { return as<ListObj>()->items; }
inline bool Value::is_markup() const {
  return is_str() && tag_.keep != Keep::kBorrowed && as<StrObj>()->markup;
}

/// Raises if the depth of `child` under one more container is too great; returns that depth.
int16_t depth_above(const Value& child);

/// Python's name of a type: "str", "NoneType", ...
std::string_view type_name(Type type);

/// What using an undefined value says.
std::string undefined_text(const Value& value);
/// Raises that, if `value` is undefined.
void require_defined(const Value& value);

bool truthy(const Value& value);
bool equals(const Value& a, const Value& b);
/// -1, 0, 1; raises for types that have no order. `op` is for the message ("<").
int compare(const Value& a, const Value& b, const char* op);

/// str() and repr().
void append_str(const Value& value, std::string& out);
std::string to_str(const Value& value);
void append_repr(const Value& value, std::string& out);
std::string repr(const Value& value);
/// repr() of a float: shortest digits that read back the same.
std::string float_repr(double d);

/// A value of the context. Strings are looked at where they stand.
Value from_json(const Json& json, int depth = 0);

/// The elements that a `for` would see; raises for what cannot be iterated.
Value iterate(const Value& value);
bool is_iterable(const Value& value);
/// len(); -1 for what has none. Takes time in proportion to a string that is not known as ASCII.
int64_t length_of(const Value& value);

}  // namespace lorry::jinja
