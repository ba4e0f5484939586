// The parsed template. Built by parser.cc, given variable slots by resolve.cc, run by
// interp.h; immutable from then on.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "jinja/value.h"

namespace lorry::jinja {

class Interp;
struct CallArgs;
using FilterFn = Value (*)(Interp&, const Value& input, CallArgs& args);
using TestFn = bool (*)(Interp&, const Value& input, CallArgs& args);
using StrMethodFn = Value (*)(Interp&, const Value& self, CallArgs& args);

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using StmtPtr = std::unique_ptr<Stmt>;

enum class ExprKind : uint8_t {
  kConst,
  kName,
  kAttribute,  ///< a.value
  kItem,       ///< a[b]
  kSlice,      ///< a[b:c:d], as the index of kItem
  kList,
  kTuple,
  kDict,  ///< args: key, value, key, value
  kNot,
  kNegative,
  kPositive,
  kAnd,
  kOr,
  kAdd,  ///< args added up
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kConcat,       ///< args joined by ~
  kCompare,      ///< a, then ops over args
  kConditional,  ///< b if a else c
  kCall,         ///< a(args)
  kFilter,       ///< a | value(args); a is null at the head of a filter block
  kTest,         ///< a is value(args)
  kNamespaceRef  ///< a.value as a target of `set`; a is a kName
};

enum class CompareOp : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

/// What `loop.name` stands for.
enum class LoopField : uint8_t {
  kNone,  ///< no such attribute, or a method
  kIndex,
  kIndex0,
  kFirst,
  kLast,
  kLength,
  kRevindex,
  kRevindex0,
  kDepth,
  kDepth0,
  kPrevitem,
  kNextitem,
};
LoopField find_loop_field(std::string_view name);

/// One place where a name may live: `hops` functions out, slot `slot`.
struct SlotRef {
  int hops = 0;
  int slot = 0;
};

struct Expr {
  ExprKind kind;
  int line = 0;
  int height = 1;
  ExprPtr a, b, c, d;
  std::vector<ExprPtr> args;
  std::vector<std::pair<Value, ExprPtr>> kwargs;
  ExprPtr star_args, star_kwargs;
  std::vector<CompareOp> ops;
  Value value;                 ///< constant, or the name
  std::vector<SlotRef> slots;  ///< of a kName: tried in order
  int global = -1;             ///< of a kName: index among the context's variables
  FilterFn filter = nullptr;
  TestFn test = nullptr;
  StrMethodFn str_method = nullptr;         ///< of a kAttribute: the method of str of that name
  bool only_a_key = false;                  ///< of a kAttribute: dict has no method of that name
  LoopField loop_field = LoopField::kNone;  ///< of a kAttribute

  Expr(ExprKind k, int l) : kind(k), line(l) {}
};

enum class StmtKind : uint8_t {
  kText,
  kOutput,
  kIf,        ///< exprs[i] -> branches[i]; one more branch is the else
  kFor,       ///< target in a [if b]: body else branches[0]
  kSet,       ///< target = a
  kSetBlock,  ///< target = body [| a]
  kMacro,
  kCall,    ///< a is the call; macro is the body
  kFilter,  ///< a(body)
  kWith,    ///< targets[i] = exprs[i] in body
  kScope,   ///< body in its own scope
  kGeneration,
  kBreak,
  kContinue,
};

struct MacroDef {
  struct Param {
    Value name;
    int slot = -1;
    ExprPtr fallback;
  };
  Value name;  ///< undefined for the body of a call block
  int line = 0;
  std::vector<Param> params;
  std::vector<StmtPtr> body;
  int n_slots = 0;
  int caller_slot = -1;  ///< -1: the body does not use it
  int varargs_slot = -1;
  int kwargs_slot = -1;
};

struct Stmt {
  StmtKind kind;
  int line = 0;
  Value text;
  ExprPtr target, a, b;
  std::vector<ExprPtr> targets, exprs;
  std::vector<StmtPtr> body;
  std::vector<std::vector<StmtPtr>> branches;
  std::unique_ptr<MacroDef> macro;
  bool recursive = false;
  int loop_slot = -1;                ///< -1: the body does not use `loop`
  int slot_begin = 0, slot_end = 0;  ///< the slots of the scope it opens

  Stmt(StmtKind k, int l) : kind(k), line(l) {}
};

struct Template {
  std::vector<std::unique_ptr<Obj>> constants;  ///< owns the immortal values; goes last
  std::vector<StmtPtr> body;
  int n_slots = 0;
  /// Names that come from the context, else from jinja.
  struct Global {
    std::string name;
    Value builtin;  ///< missing if there is none
  };
  std::vector<Global> globals;
  std::unordered_map<std::string_view, size_t> global_places;  ///< by name; once all are known
};

/// Parses and resolves; raises TemplateError with a line.
std::unique_ptr<Template> parse_template(std::string_view source);
/// Gives every name its slots (second half of parse_template).
void resolve_names(Template& tmpl);

/// A function that templates know without being given it (`range`); missing if there is none.
Value find_builtin(std::string_view name);
/// By name; null if there is none.
FilterFn find_filter(std::string_view name);
TestFn find_test(std::string_view name);
StrMethodFn find_str_method(std::string_view name);
/// Whether `a.name` of a dict can be nothing but the value of that key.
bool is_only_a_key(std::string_view name);

}  // namespace lorry::jinja
