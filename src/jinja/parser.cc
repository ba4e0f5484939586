// Statements of jinja2's grammar: source into a tree.
#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

#include "jinja/ast.h"
#include "jinja/expressions.h"
#include "jinja/lexer.h"

namespace lorry::jinja {

namespace {

using Names = std::initializer_list<std::string_view>;

class Parser : private ExpressionParser {
 public:
  explicit Parser(std::vector<Token> tokens) : ExpressionParser(std::move(tokens)) {}

  std::unique_ptr<Template> run() {
    template_->body = statements({});
    return std::move(template_);
  }

 private:
  bool at_end_of(Names ends) const {
    return now().type == Tok::kName &&
           std::any_of(ends.begin(), ends.end(), [&](auto end) { return now().text == end; });
  }

  /// Up to a block that begins with one of `ends`; that name is then the current token.
  std::vector<StmtPtr> statements(Names ends) {
    const Nest nest(*this);
    std::vector<StmtPtr> out;
    while (now().type != Tok::kEof) {
      const int line = now().line;
      if (now().type == Tok::kData) {
        auto s = std::make_unique<Stmt>(StmtKind::kText, line);
        s->text = constant(std::move(next().text));
        out.push_back(std::move(s));
      } else if (now().type == Tok::kVariableBegin) {
        next();
        auto s = std::make_unique<Stmt>(StmtKind::kOutput, line);
        s->exprs.push_back(tuple());
        expect(Tok::kVariableEnd);
        out.push_back(std::move(s));
      } else {
        expect(Tok::kBlockBegin);
        if (at_end_of(ends)) return out;
        out.push_back(statement());
        expect(Tok::kBlockEnd);
      }
    }
    if (ends.size() > 0) {
      fail(fmt::format("unexpected end of template; '{}' is missing", *ends.begin()));
    }
    return out;
  }

  std::vector<StmtPtr> block(Names ends) {
    skip_op(":");
    expect(Tok::kBlockEnd);
    return statements(ends);
  }

  std::vector<StmtPtr> block_to(std::string_view end) {
    auto out = block({end});
    next();
    return out;
  }

  StmtPtr statement() {
    if (now().type != Tok::kName) fail("tag name expected");
    const int line = now().line;
    const std::string tag = next().text;
    if (tag == "set") return set(line);
    if (tag == "if") return if_statement(line);
    if (tag == "for") return for_loop(line);
    if (tag == "macro") return macro(line);
    if (tag == "call") return call_block(line);
    if (tag == "filter") return filter_block(line);
    if (tag == "with") return with(line);
    if (tag == "print") return print(line);
    if (tag == "block") return named_block(line);
    if (tag == "autoescape") return autoescape(line);
    if (tag == "break") return loop_control(StmtKind::kBreak, line);
    if (tag == "continue") return loop_control(StmtKind::kContinue, line);
    if (tag == "generation") {
      auto s = std::make_unique<Stmt>(StmtKind::kGeneration, line);
      const int loops = std::exchange(loops_, 0);
      s->body = block_to("endgeneration");
      loops_ = loops;
      return s;
    }
    if (tag == "include" || tag == "import" || tag == "from" || tag == "extends") {
      fail(fmt::format("'{{% {} %}}' is not for chat templates: there is no other file", tag),
           line);
    }
    fail(fmt::format("unknown tag '{}'", tag), line);
  }

  StmtPtr loop_control(StmtKind kind, int line) {
    if (loops_ == 0) fail("'break' and 'continue' belong inside a loop", line);
    return std::make_unique<Stmt>(kind, line);
  }

  StmtPtr set(int line) {
    ExprPtr where = target(true);
    if (skip_op("=")) {
      auto s = std::make_unique<Stmt>(StmtKind::kSet, line);
      s->target = std::move(where);
      s->a = tuple();
      return s;
    }
    auto s = std::make_unique<Stmt>(StmtKind::kSetBlock, line);
    s->target = std::move(where);
    if (now().is_op("|")) s->a = filters(nullptr);
    s->body = block_to("endset");
    return s;
  }

  StmtPtr if_statement(int line) {
    auto s = std::make_unique<Stmt>(StmtKind::kIf, line);
    while (true) {
      s->exprs.push_back(tuple(false));
      s->branches.push_back(block({"elif", "else", "endif"}));
      const std::string end = next().text;
      if (end == "elif") continue;
      if (end == "else") s->branches.push_back(block_to("endif"));
      return s;
    }
  }

  StmtPtr for_loop(int line) {
    auto s = std::make_unique<Stmt>(StmtKind::kFor, line);
    s->target = target(false, "in");
    expect_name("in");
    s->a = tuple(false, "recursive");
    if (skip_name("if")) s->b = expression();
    s->recursive = skip_name("recursive");
    ++loops_;
    s->body = block({"endfor", "else"});
    --loops_;
    if (next().text == "else") s->branches.push_back(block_to("endfor"));
    return s;
  }

  void signature(MacroDef& def) {
    expect_op("(");
    while (!now().is_op(")")) {
      if (!def.params.empty()) expect_op(",");
      MacroDef::Param param;
      param.name = constant(take_name());
      if (skip_op("=")) {
        param.fallback = expression();
      } else if (!def.params.empty() && def.params.back().fallback) {
        fail("non-default argument follows default argument");
      }
      def.params.push_back(std::move(param));
    }
    expect_op(")");
  }

  StmtPtr macro(int line) {
    auto s = std::make_unique<Stmt>(StmtKind::kMacro, line);
    s->macro = std::make_unique<MacroDef>();
    s->macro->line = line;
    std::string name = take_name();
    s->macro->name = constant(name);
    s->target = name_node(std::move(name), line);
    signature(*s->macro);
    const int loops = std::exchange(loops_, 0);
    s->macro->body = block_to("endmacro");
    loops_ = loops;
    return s;
  }

  StmtPtr call_block(int line) {
    auto s = std::make_unique<Stmt>(StmtKind::kCall, line);
    s->macro = std::make_unique<MacroDef>();
    s->macro->line = line;
    if (now().is_op("(")) signature(*s->macro);
    s->a = expression();
    if (s->a->kind != ExprKind::kCall) fail("expected a call", line);
    const int loops = std::exchange(loops_, 0);
    s->macro->body = block_to("endcall");
    loops_ = loops;
    return s;
  }

  StmtPtr filter_block(int line) {
    auto s = std::make_unique<Stmt>(StmtKind::kFilter, line);
    s->a = filters(nullptr, true);
    s->body = block_to("endfilter");
    return s;
  }

  StmtPtr with(int line) {
    auto s = std::make_unique<Stmt>(StmtKind::kWith, line);
    while (now().type != Tok::kBlockEnd) {
      if (!s->targets.empty()) expect_op(",");
      s->targets.push_back(target(false));
      expect_op("=");
      s->exprs.push_back(expression());
    }
    s->body = block_to("endwith");
    return s;
  }

  StmtPtr print(int line) {
    auto s = std::make_unique<Stmt>(StmtKind::kOutput, line);
    while (now().type != Tok::kBlockEnd) {
      if (!s->exprs.empty()) expect_op(",");
      s->exprs.push_back(expression());
    }
    return s;
  }

  StmtPtr named_block(int line) {
    auto s = std::make_unique<Stmt>(StmtKind::kScope, line);
    const std::string name = take_name();
    skip_name("scoped");
    skip_name("required");
    s->body = block_to("endblock");
    skip_name(name);
    return s;
  }

  StmtPtr autoescape(int line) {
    auto s = std::make_unique<Stmt>(StmtKind::kScope, line);
    const ExprPtr on = expression();
    if (on->kind != ExprKind::kConst || truthy(on->value)) {
      fail("autoescape is not for chat templates", line);
    }
    s->body = block_to("endautoescape");
    return s;
  }

  int loops_ = 0;
};

}  // namespace

std::unique_ptr<Template> parse_template(std::string_view source) {
  auto tmpl = Parser(tokenize(source)).run();
  resolve_names(*tmpl);
  return tmpl;
}

}  // namespace lorry::jinja
