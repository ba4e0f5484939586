// Runs a parsed template. One Interp renders once, on one thread; errors fly as TemplateError.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "jinja/ast.h"
#include "jinja/value.h"

namespace lorry::jinja {

/// What a hostile template may cost.
struct Limits {
  int64_t steps = 20'000'000;           ///< expressions, iterations, and 64 bytes of new text each
  int64_t memory = int64_t{512} << 20;  ///< bytes that values hold at one time
  size_t output = size_t{64} << 20;     ///< bytes of the result, and of any one string
  int depth = 2500;                     ///< nested evaluations
  int calls = 200;                      ///< nested macros and recursive loops
};

/// The variables of the template itself or of one call of a macro.
struct Frame : Obj {
  using Slots = std::vector<Value, Pooled<Value>>;
  Slots slots;
  Frame* parent = nullptr;  ///< of the function around; kept alive by `parent_ref`
  Value parent_ref;
};

struct MacroObj : Obj {
  const MacroDef* def = nullptr;
  Value closure;  ///< the Frame it was defined in
};

/// Evaluated arguments of a call.
struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<Value, Value>> named;

  bool empty() const { return positional.empty() && named.empty(); }
  /// Binds to parameters by position or name, Python's rules; an argument that is not given stays
  /// missing. Raises for too many or unknown ones, naming `function`.
  void bind(std::string_view function, std::initializer_list<std::string_view> names,
            std::initializer_list<Value*> into);
};

using FunctionFn = Value (*)(Interp&, CallArgs&);
struct FunctionObj : Obj {
  FunctionFn fn = nullptr;
  std::string_view name;
};

struct MethodObj : Obj {
  Value self;
  Value name;
};

struct LoopObj : Obj {
  Value items;
  int64_t index0 = 0;
  int depth0 = 0;
  Value last_changed = Value::missing();
  const Stmt* recursive = nullptr;
  Value frame;  ///< for recursive calls
};

struct CyclerObj : Obj {
  std::vector<Value> items;
  size_t at = 0;
};

struct JoinerObj : Obj {
  Value separator;
  bool used = false;
};

class Interp {
 public:
  /// `day` (2025-01-31) is what strftime_now formats; empty: the time of rendering.
  Interp(const Template& tmpl, const Limits& limits, std::string day = {})
      : template_(tmpl), limits_(limits), day_(std::move(day)) {}
  ~Interp();

  /// Renders with named values, which outlive the Interp.
  std::string render(const std::vector<std::pair<std::string_view, const Json*>>& variables);
  /// Byte ranges of the output inside `{% generation %}`.
  const std::vector<std::pair<size_t, size_t>>& generation() const { return generation_; }
  /// Whether a generation block ran where its place in the output is not known (in a macro or a
  /// block that is set): its range is then missing.
  bool generation_lost() const { return generation_lost_; }

  const std::string& day() const { return day_; }

  /// The line that was being run.
  int line() const { return line_; }

  // For filters, tests and methods.

  /// Counts work; raises when the template has done too much.
  void charge(int64_t steps) { meter_.charge(steps); }
  /// Counts the work of going through `input` if it is a string.
  void charge_text(const Value& input) {
    if (input.is_str()) charge(static_cast<int64_t>(input.str().size() / 64));
  }
  /// The same where each of its characters is looked up.
  void charge_characters(const Value& input) {
    if (input.is_str()) charge(static_cast<int64_t>(input.str().size()));
  }
  /// make_string of what `safe` and `escape` give.
  Value make_markup(std::string s);
  /// A new string; raises if it is too long.
  Value make_string(std::string s);
  void check_size(size_t bytes) const {
    if (bytes > limits_.output) raise("the rendered text is too long; rendering was stopped");
  }

  Value get_attribute(const Value& object, const Value& name);
  Value get_item(const Value& object, const Value& key);
  Value call(const Value& callee, CallArgs& args);
  Value call_method(const Value& self, std::string_view name, CallArgs& args);
  Value apply_filter(const Value& name, const Value& input, CallArgs& args);
  bool apply_test(const Value& name, const Value& input, CallArgs& args);
  Value add(const Value& a, const Value& b);
  Value binary(ExprKind op, const Value& a, const Value& b);
  bool contains(const Value& container, const Value& item);
  /// length_of(), its work counted.
  int64_t length(const Value& value);
  /// iterate(), its work counted.
  Value elements(const Value& value);
  Value make_namespace(CallArgs& args);

 private:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };

  // One step of work, one evaluation deeper.
  void deeper() {
    charge(1);
    if (++depth_ > limits_.depth) raise("evaluation goes too deep");
  }

  Flow run(const std::vector<StmtPtr>& body);
  Flow run(const Stmt& s);
  Flow run_for(const Stmt& s, const Value& iterable, int depth0);
  Value filtered(const Stmt& s, const Value& items);
  void run_set(const Stmt& s);
  void run_call_block(const Stmt& s);
  Flow run_generation(const Stmt& s);
  std::string capture(const std::vector<StmtPtr>& body, Flow* flow = nullptr);
  void clear_slots(int begin, int end);
  void assign(const Expr& target, Value value);
  void emit(std::string_view text) {
    out_->append(text);
    check_size(out_->size());
  }

  Value eval(const Expr& e) {
    const Value* there = peek(e);
    return there != nullptr ? *there : compute(e);
  }
  Value compute(const Expr& e);
  Value eval_at_depth(const Expr& e);
  const Value* find_name(const Expr& e) const;
  // The value of a constant, of a name, and of what lies under a constant key in them, where it
  // stands: nothing changes but by `set`. Null for anything else, and where nothing is.
  const Value* peek(const Expr& e) { return e.kind == ExprKind::kConst ? &e.value : peek_under(e); }
  const Value* peek_under(const Expr& e);
  const Value& look(const Expr& e, Value& room);
  bool holds(const Expr& e);
  void print(const Expr& e);
  bool print_sum(const Expr& e, Value& sum);
  Value eval_attribute(const Expr& e);
  Value eval_filter(const Expr& e);
  bool eval_test(const Expr& e);
  Value eval_call(const Expr& e);
  bool eval_compare(const Expr& e);
  bool compare_by(CompareOp op, const Value& left, const Value& right);
  Value eval_sum(const Expr& e);
  Value eval_concat(const Expr& e);
  Value taken_back(size_t begin);
  Value eval_item(const Expr& e);
  Value character(std::string_view s, int64_t i, int64_t n);
  Value eval_slice(const Value& object, const Expr& slice);
  Value eval_arithmetic(const Expr& e);
  void eval_args(const Expr& e, CallArgs& args);
  Value call_macro(const MacroObj& macro, CallArgs& args);
  Value call_loop(LoopObj& loop, CallArgs& args);

  const Template& template_;
  const Limits& limits_;
  const std::string day_;
  Meter& meter_ = meter;
  std::vector<Value> globals_;
  std::vector<Value> namespaces_;  // emptied at the end: they may hold each other
  std::vector<Value> frames_;      // that outlived their call, likewise
  Frame* frame_ = nullptr;
  std::string* out_ = nullptr;
  std::string output_;
  std::vector<std::pair<size_t, size_t>> generation_;
  bool generation_lost_ = false;
  Value filter_input_;  // what a filter chain without an input (a filter block's) starts from
  int line_ = 0;
  int depth_ = 0;
  int calls_ = 0;
};

/// Whether a value of this type has a method of this name (which then hides a key of that name).
bool has_method(Type type, std::string_view name);
/// Of str; among them those that templates cannot call.
bool is_str_method(std::string_view name);
/// Whether the sandbox refuses it because it changes the object.
bool is_mutating(Type type, std::string_view name);
Value str_method(Interp& interp, const Value& self, std::string_view name, CallArgs& args);
Value call_str_method(Interp& interp, StrMethodFn method, const Value& self, CallArgs& args);

/// "%s" % args, str.format and format(value, spec).
Value percent_format(Interp& interp, std::string_view format, const Value& args);
Value brace_format(Interp& interp, std::string_view format, CallArgs& args);
std::string format_value(const Value& value, std::string_view spec);

/// json.dumps. `indent` missing or none: one line.
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool pretty = false;
  std::string indent;
  bool spaces = false;  ///< `indent` is nothing else
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
void append_json(const Value& value, const JsonStyle& style, int level, std::string& out);

/// int() and float() of a string; false if it is none.
bool parse_int(std::string_view text, int base, int64_t& out);
bool parse_float(std::string_view text, double& out);
/// s[begin:end:step] of a string by code points, and of a list.
Value slice_value(Interp& interp, const Value& object, const Value& begin, const Value& end,
                  const Value& step);

}  // namespace lorry::jinja
