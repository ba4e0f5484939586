// Turns names into slots. jinja2 scopes names when it compiles: a loop, a `with`, a block that is
// set or filtered, and a macro open scopes; `if` does not. A name that a scope assigns somewhere
// lives there; while it is not assigned yet, the scope around is asked.
#include <map>

#include "jinja/ast.h"

namespace lorry::jinja {

namespace {

struct Function {
  MacroDef* macro = nullptr;  // null: the template itself
  int n_slots = 0;
};

struct Name {
  int slot = -1;
  bool definite = false;  // always assigned: nothing outside is asked
  int* used = nullptr;    // where to note the slot once the name is read (`loop`, `caller`)
};

struct Scope {
  Scope* parent = nullptr;
  Function* function = nullptr;
  std::map<std::string, Name, std::less<>> names;
};

class Resolver {
 public:
  explicit Resolver(Template& tmpl) : template_(tmpl) {}

  void run() {
    Function function;
    Scope scope{nullptr, &function, {}};
    body_in(scope, template_.body);
    template_.n_slots = function.n_slots;
    for (size_t i = 0; i < template_.globals.size(); ++i) {
      template_.global_places.emplace(template_.globals[i].name, i);
    }
  }

 private:
  Name& declare(Scope& scope, std::string_view name, bool definite) {
    const auto it = scope.names.find(name);
    if (it != scope.names.end()) {
      it->second.definite |= definite;
      return it->second;
    }
    Name entry;
    entry.slot = scope.function->n_slots++;
    entry.definite = definite;
    return scope.names.emplace(std::string(name), entry).first->second;
  }

  void declare_target(Scope& scope, const Expr& target, bool definite) {
    if (target.kind == ExprKind::kName) declare(scope, target.value.str(), definite);
    for (const auto& part : target.args) declare_target(scope, *part, definite);
  }

  // What statements assign in this scope; nested scopes are not entered.
  void collect(Scope& scope, const std::vector<StmtPtr>& body) {
    for (const auto& s : body) {
      if (s->kind == StmtKind::kSet || s->kind == StmtKind::kSetBlock ||
          s->kind == StmtKind::kMacro) {
        declare_target(scope, *s->target, false);
      } else if (s->kind == StmtKind::kIf) {
        for (const auto& branch : s->branches) collect(scope, branch);
      }
    }
  }

  void body_in(Scope& scope, std::vector<StmtPtr>& body) {
    collect(scope, body);
    visit(scope, body);
  }

  void visit(Scope& scope, std::vector<StmtPtr>& body) {
    for (auto& s : body) statement(scope, *s);
  }

  // A scope inside `outer`, in the same function; `prepare` declares its parameters.
  template <typename Prepare>
  void scoped(Scope& outer, Stmt& s, std::vector<StmtPtr>& body, Prepare prepare) {
    Scope inner{&outer, outer.function, {}};
    s.slot_begin = outer.function->n_slots;
    prepare(inner);
    body_in(inner, body);
    s.slot_end = outer.function->n_slots;
  }

  void statement(Scope& scope, Stmt& s) {
    switch (s.kind) {
      case StmtKind::kText:
      case StmtKind::kBreak:
      case StmtKind::kContinue:
        return;
      case StmtKind::kOutput:
        return expressions(scope, s.exprs);
      case StmtKind::kIf:
        expressions(scope, s.exprs);
        for (auto& branch : s.branches) visit(scope, branch);
        return;
      case StmtKind::kFor:
        return loop(scope, s);
      case StmtKind::kSet:
        expression(scope, s.a);
        expression(scope, s.target);
        return;
      case StmtKind::kSetBlock:
      case StmtKind::kFilter:
        expression(scope, s.target);
        expression(scope, s.a);
        return scoped(scope, s, s.body, [](Scope&) {});
      case StmtKind::kMacro:
        expression(scope, s.target);
        return macro(scope, *s.macro);
      case StmtKind::kCall:
        expression(scope, s.a);
        return macro(scope, *s.macro);
      case StmtKind::kWith:
        expressions(scope, s.exprs);
        return scoped(scope, s, s.body, [&](Scope& inner) {
          for (auto& target : s.targets) {
            declare_target(inner, *target, true);
            expression(inner, target);
          }
        });
      case StmtKind::kScope:
      case StmtKind::kGeneration:
        return scoped(scope, s, s.body, [](Scope&) {});
    }
  }

  void loop(Scope& scope, Stmt& s) {
    expression(scope, s.a);
    const int begin = scope.function->n_slots;
    if (!s.branches.empty()) {
      Scope inner{&scope, scope.function, {}};
      body_in(inner, s.branches.front());
    }
    scoped(scope, s, s.body, [&](Scope& inner) {
      declare_target(inner, *s.target, true);
      expression(inner, s.target);
      Name& name = declare(inner, "loop", true);
      name.used = &s.loop_slot;
      expression(inner, s.b);
    });
    s.slot_begin = begin;
  }

  void macro(Scope& scope, MacroDef& def) {
    Function function;
    function.macro = &def;
    Scope inner{&scope, &function, {}};
    for (auto& param : def.params) param.slot = declare(inner, param.name.str(), true).slot;
    const std::pair<const char*, int*> specials[] = {
        {"caller", &def.caller_slot}, {"varargs", &def.varargs_slot}, {"kwargs", &def.kwargs_slot}};
    Function unused;
    Scope probe{nullptr, &unused, {}};
    collect(probe, def.body);
    for (const auto& [name, used] : specials) {
      if (inner.names.contains(name) || probe.names.contains(name)) continue;
      declare(inner, name, true).used = used;
    }
    for (auto& param : def.params) expression(inner, param.fallback);
    body_in(inner, def.body);
    def.n_slots = function.n_slots;
  }

  void expressions(Scope& scope, std::vector<ExprPtr>& list) {
    for (auto& e : list) expression(scope, e);
  }

  void expression(Scope& scope, ExprPtr& e) {
    if (!e) return;
    if (e->kind == ExprKind::kName) return name(scope, *e);
    expression(scope, e->a);
    expression(scope, e->b);
    expression(scope, e->c);
    expression(scope, e->d);
    expressions(scope, e->args);
    for (auto& [key, value] : e->kwargs) expression(scope, value);
    expression(scope, e->star_args);
    expression(scope, e->star_kwargs);
  }

  void name(Scope& scope, Expr& e) {
    int hops = 0;
    for (Scope* at = &scope; at != nullptr; at = at->parent) {
      const auto it = at->names.find(e.value.str());
      if (it != at->names.end()) {
        e.slots.push_back({hops, it->second.slot});
        if (it->second.used != nullptr) *it->second.used = it->second.slot;
        if (it->second.definite) return;
      }
      if (at->parent != nullptr && at->parent->function != at->function) ++hops;
    }
    e.global = global(e.value.str());
  }

  int global(std::string_view name) {
    const auto [it, fresh] = globals_.emplace(std::string(name), globals_.size());
    if (fresh) template_.globals.push_back({std::string(name), find_builtin(name)});
    return static_cast<int>(it->second);
  }

  Template& template_;
  std::map<std::string, size_t, std::less<>> globals_;
};

}  // namespace

void resolve_names(Template& tmpl) { Resolver(tmpl).run(); }

}  // namespace lorry::jinja
