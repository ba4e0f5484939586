// Recursive descent over jinja2's grammar, its precedences and its oddities (`~` binds tighter than
// `+`; a test takes one bare argument; `-` before a power).
#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"
#include "text/jinja_unicode.h"

namespace lorry::text::jinja {

namespace {

// A template nests neither deeper than this in its text nor higher than that as a tree.
constexpr int kMaxNesting = 150;
constexpr int kMaxHeight = 1000;

using Names = std::initializer_list<std::string_view>;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  std::unique_ptr<Template> run() {
    template_->body = statements({});
    return std::move(template_);
  }

 private:
  const Token& now() const { return tokens_[pos_]; }
  const Token& ahead() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  Token& next() {
    Token& token = tokens_[pos_];
    if (pos_ + 1 < tokens_.size()) ++pos_;
    return token;
  }

  [[noreturn]] void fail(std::string message, int line = 0) {
    throw TemplateError{std::move(message), line > 0 ? line : now().line};
  }

  std::string describe(const Token& t) const {
    switch (t.type) {
      case Tok::kData:
        return "template text";
      case Tok::kVariableBegin:
        return "begin of print statement";
      case Tok::kVariableEnd:
        return "end of print statement";
      case Tok::kBlockBegin:
        return "begin of statement block";
      case Tok::kBlockEnd:
        return "end of statement block";
      case Tok::kEof:
        return "end of template";
      case Tok::kString:
        return "string";
      case Tok::kInteger:
        return "integer";
      case Tok::kFloat:
        return "float";
      default:
        return t.text;
    }
  }

  bool skip_op(std::string_view op) {
    if (!now().is_op(op)) return false;
    next();
    return true;
  }
  bool skip_name(std::string_view name) {
    if (!now().is_name(name)) return false;
    next();
    return true;
  }
  void expect_op(std::string_view op) {
    if (!skip_op(op)) fail(fmt::format("expected '{}', got '{}'", op, describe(now())));
  }
  void expect_name(std::string_view name) {
    if (!skip_name(name)) fail(fmt::format("expected '{}', got '{}'", name, describe(now())));
  }
  std::string take_name() {
    if (now().type != Tok::kName) fail(fmt::format("expected a name, got '{}'", describe(now())));
    return next().text;
  }
  void expect(Tok type) {
    if (now().type != type) {
      Token wanted;
      wanted.type = type;
      fail(fmt::format("expected {}, got '{}'", describe(wanted), describe(now())));
    }
    next();
  }

  Value constant(std::string s) {
    auto obj = std::make_unique<StrObj>(std::move(s));
    obj->refs = -1;
    obj->ascii = is_ascii(obj->view);
    template_->constants.push_back(std::move(obj));
    return Value::object(Type::kStr, template_->constants.back().get());
  }

  struct Nest {
    explicit Nest(Parser& p) : parser(p) {
      if (++parser.nesting_ > kMaxNesting) parser.fail("the template is nested too deeply");
    }
    ~Nest() { --parser.nesting_; }
    Parser& parser;
  };

  // Records the tree's height, so that nothing later recurses without bound.
  ExprPtr done(ExprPtr e) {
    int height = 0;
    const auto look = [&](const ExprPtr& child) {
      if (child) height = std::max(height, child->height);
    };
    look(e->a);
    look(e->b);
    look(e->c);
    look(e->d);
    look(e->star_args);
    look(e->star_kwargs);
    for (const auto& arg : e->args) look(arg);
    for (const auto& [name, arg] : e->kwargs) look(arg);
    e->height = height + 1;
    if (e->height > kMaxHeight) fail("an expression is too long", e->line);
    return e;
  }

  ExprPtr node(ExprKind kind, int line, ExprPtr a = nullptr, ExprPtr b = nullptr,
               ExprPtr c = nullptr) {
    auto e = std::make_unique<Expr>(kind, line);
    e->a = std::move(a);
    e->b = std::move(b);
    e->c = std::move(c);
    return done(std::move(e));
  }

  ExprPtr const_node(Value value, int line) {
    auto e = std::make_unique<Expr>(ExprKind::kConst, line);
    e->value = std::move(value);
    return e;
  }

  ExprPtr name_node(std::string name, int line) {
    auto e = std::make_unique<Expr>(ExprKind::kName, line);
    e->value = constant(std::move(name));
    return e;
  }

  // ---- statements

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
    if (tag == "if") return if_(line);
    if (tag == "for") return for_(line);
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

  StmtPtr if_(int line) {
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

  StmtPtr for_(int line) {
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

  // ---- targets of assignments

  ExprPtr target(bool with_namespace, std::string_view end = {}) {
    const int line = now().line;
    std::vector<ExprPtr> parts;
    bool is_tuple = false;
    while (true) {
      if (!parts.empty()) expect_op(",");
      if (tuple_end(end) || now().is_op("=")) break;
      parts.push_back(target_part(with_namespace));
      if (!now().is_op(",")) break;
      is_tuple = true;
    }
    if (parts.empty()) fail(fmt::format("expected a name, got '{}'", describe(now())), line);
    if (!is_tuple) return std::move(parts.front());
    auto e = std::make_unique<Expr>(ExprKind::kTuple, line);
    e->args = std::move(parts);
    return done(std::move(e));
  }

  ExprPtr target_part(bool with_namespace) {
    const Nest nest(*this);
    const int line = now().line;
    if (skip_op("(")) {
      ExprPtr inner = target(with_namespace);
      expect_op(")");
      return inner;
    }
    std::string name = take_name();
    for (const auto keyword : {"true", "false", "none", "True", "False", "None"}) {
      if (name == keyword) fail(fmt::format("can't assign to '{}'", name), line);
    }
    ExprPtr e = name_node(std::move(name), line);
    if (!with_namespace || !skip_op(".")) return e;
    e = node(ExprKind::kNamespaceRef, line, std::move(e));
    e->value = constant(take_name());
    return e;
  }

  // ---- expressions

  bool tuple_end(std::string_view end) const {
    if (now().type == Tok::kVariableEnd || now().type == Tok::kBlockEnd || now().is_op(")")) {
      return true;
    }
    return !end.empty() && now().is_name(end);
  }

  ExprPtr tuple(bool with_conditional = true, std::string_view end = {}, bool parentheses = false) {
    const int line = now().line;
    std::vector<ExprPtr> parts;
    bool is_tuple = false;
    while (true) {
      if (!parts.empty()) expect_op(",");
      if (tuple_end(end)) break;
      parts.push_back(expression(with_conditional));
      if (!now().is_op(",")) break;
      is_tuple = true;
    }
    if (!is_tuple && !parts.empty()) return std::move(parts.front());
    if (!is_tuple && !parentheses) {
      fail(fmt::format("expected an expression, got '{}'", describe(now())));
    }
    auto e = std::make_unique<Expr>(ExprKind::kTuple, line);
    e->args = std::move(parts);
    return done(std::move(e));
  }

  ExprPtr expression(bool with_conditional = true) {
    const Nest nest(*this);
    return with_conditional ? conditional() : or_();
  }

  ExprPtr conditional() {
    const int line = now().line;
    ExprPtr value = or_();
    while (skip_name("if")) {
      const Nest nest(*this);
      ExprPtr test = or_();
      ExprPtr otherwise = skip_name("else") ? conditional() : nullptr;
      value = node(ExprKind::kConditional, line, std::move(test), std::move(value),
                   std::move(otherwise));
    }
    return value;
  }

  ExprPtr or_() {
    const int line = now().line;
    ExprPtr left = and_();
    while (skip_name("or")) left = node(ExprKind::kOr, line, std::move(left), and_());
    return left;
  }

  ExprPtr and_() {
    const int line = now().line;
    ExprPtr left = not_();
    while (skip_name("and")) left = node(ExprKind::kAnd, line, std::move(left), not_());
    return left;
  }

  ExprPtr not_() {
    const Nest nest(*this);
    const int line = now().line;
    if (skip_name("not")) return node(ExprKind::kNot, line, not_());
    return comparison();
  }

  bool compare_op(CompareOp& op) {
    static constexpr std::pair<std::string_view, CompareOp> kOps[] = {
        {"==", CompareOp::kEq}, {"!=", CompareOp::kNe}, {"<", CompareOp::kLt},
        {"<=", CompareOp::kLe}, {">", CompareOp::kGt},  {">=", CompareOp::kGe}};
    for (const auto& [text, code] : kOps) {
      if (!skip_op(text)) continue;
      op = code;
      return true;
    }
    op = CompareOp::kIn;
    if (skip_name("in")) return true;
    if (!now().is_name("not") || !ahead().is_name("in")) return false;
    next();
    next();
    op = CompareOp::kNotIn;
    return true;
  }

  ExprPtr comparison() {
    const int line = now().line;
    ExprPtr first = sum();
    CompareOp op;
    if (!compare_op(op)) return first;
    auto e = std::make_unique<Expr>(ExprKind::kCompare, line);
    e->a = std::move(first);
    do {
      e->ops.push_back(op);
      e->args.push_back(sum());
    } while (compare_op(op));
    return done(std::move(e));
  }

  ExprPtr sum() {
    const int line = now().line;
    ExprPtr left = concat();
    while (now().is_op("+") || now().is_op("-")) {
      const auto kind = next().text == "+" ? ExprKind::kAdd : ExprKind::kSub;
      left = node(kind, line, std::move(left), concat());
    }
    return left;
  }

  ExprPtr concat() {
    const int line = now().line;
    ExprPtr first = product();
    if (!now().is_op("~")) return first;
    auto e = std::make_unique<Expr>(ExprKind::kConcat, line);
    e->args.push_back(std::move(first));
    while (skip_op("~")) e->args.push_back(product());
    return done(std::move(e));
  }

  ExprPtr product() {
    const int line = now().line;
    ExprPtr left = power();
    while (true) {
      ExprKind kind;
      if (now().is_op("*")) {
        kind = ExprKind::kMul;
      } else if (now().is_op("/")) {
        kind = ExprKind::kDiv;
      } else if (now().is_op("//")) {
        kind = ExprKind::kFloorDiv;
      } else if (now().is_op("%")) {
        kind = ExprKind::kMod;
      } else {
        return left;
      }
      next();
      left = node(kind, line, std::move(left), power());
    }
  }

  ExprPtr power() {
    const int line = now().line;
    ExprPtr left = unary();
    while (skip_op("**")) left = node(ExprKind::kPow, line, std::move(left), unary());
    return left;
  }

  ExprPtr unary(bool with_filter = true) {
    const Nest nest(*this);
    const int line = now().line;
    ExprPtr e;
    if (skip_op("-")) {
      e = node(ExprKind::kNegative, line, unary(false));
    } else if (skip_op("+")) {
      e = node(ExprKind::kPositive, line, unary(false));
    } else {
      e = primary();
    }
    e = postfix(std::move(e));
    return with_filter ? filter_or_test(std::move(e)) : std::move(e);
  }

  ExprPtr primary() {
    const int line = now().line;
    switch (now().type) {
      case Tok::kName:
        return name_or_keyword(line);
      case Tok::kString: {
        std::string text = next().text;
        while (now().type == Tok::kString) text += next().text;
        return const_node(constant(std::move(text)), line);
      }
      case Tok::kInteger:
        return const_node(Value::integer(next().integer), line);
      case Tok::kFloat:
        return const_node(Value::real(next().real), line);
      default:
        break;
    }
    if (skip_op("(")) {
      ExprPtr e = tuple(true, {}, true);
      expect_op(")");
      return e;
    }
    if (skip_op("[")) return list(line);
    if (skip_op("{")) return dict(line);
    fail(fmt::format("unexpected '{}'", describe(now())));
  }

  ExprPtr name_or_keyword(int line) {
    std::string name = next().text;
    if (name == "true" || name == "True") return const_node(Value::boolean(true), line);
    if (name == "false" || name == "False") return const_node(Value::boolean(false), line);
    if (name == "none" || name == "None") return const_node(Value::none(), line);
    return name_node(std::move(name), line);
  }

  ExprPtr list(int line) {
    auto e = std::make_unique<Expr>(ExprKind::kList, line);
    while (!now().is_op("]")) {
      if (!e->args.empty()) expect_op(",");
      if (now().is_op("]")) break;
      e->args.push_back(expression());
    }
    expect_op("]");
    return done(std::move(e));
  }

  ExprPtr dict(int line) {
    auto e = std::make_unique<Expr>(ExprKind::kDict, line);
    while (!now().is_op("}")) {
      if (!e->args.empty()) expect_op(",");
      if (now().is_op("}")) break;
      e->args.push_back(expression());
      expect_op(":");
      e->args.push_back(expression());
    }
    expect_op("}");
    return done(std::move(e));
  }

  ExprPtr postfix(ExprPtr e) {
    while (true) {
      if (now().is_op(".") || now().is_op("[")) {
        e = subscript(std::move(e));
      } else if (now().is_op("(")) {
        e = call(std::move(e));
      } else {
        return e;
      }
    }
  }

  ExprPtr filter_or_test(ExprPtr e) {
    while (true) {
      if (now().is_op("|")) {
        e = filters(std::move(e));
      } else if (now().is_name("is")) {
        e = test(std::move(e));
      } else if (now().is_op("(")) {
        e = call(std::move(e));
      } else {
        return e;
      }
    }
  }

  ExprPtr subscript(ExprPtr e) {
    const int line = now().line;
    if (skip_op(".")) {
      if (now().type == Tok::kInteger) {
        auto index = const_node(Value::integer(next().integer), line);
        return node(ExprKind::kItem, line, std::move(e), std::move(index));
      }
      auto attribute = node(ExprKind::kAttribute, line, std::move(e));
      attribute->value = constant(take_name());
      attribute->str_method = find_str_method(attribute->value.str());
      attribute->only_a_key = is_only_a_key(attribute->value.str());
      return attribute;
    }
    expect_op("[");
    std::vector<ExprPtr> parts;
    while (!now().is_op("]")) {
      if (!parts.empty()) expect_op(",");
      parts.push_back(subscribed());
    }
    expect_op("]");
    if (parts.size() == 1) return node(ExprKind::kItem, line, std::move(e), std::move(parts[0]));
    auto index = std::make_unique<Expr>(ExprKind::kTuple, line);
    index->args = std::move(parts);
    return node(ExprKind::kItem, line, std::move(e), done(std::move(index)));
  }

  ExprPtr subscribed() {
    const int line = now().line;
    ExprPtr begin, end, step;
    if (!now().is_op(":")) {
      begin = expression();
      if (!now().is_op(":")) return begin;
    }
    expect_op(":");
    const auto at_stop = [&] { return now().is_op("]") || now().is_op(",") || now().is_op(":"); };
    if (!at_stop()) end = expression();
    if (skip_op(":") && !at_stop()) step = expression();
    auto e = std::make_unique<Expr>(ExprKind::kSlice, line);
    e->b = std::move(begin);
    e->c = std::move(end);
    e->d = std::move(step);
    return done(std::move(e));
  }

  void call_args(Expr& e) {
    const int line = now().line;
    const auto ensure = [&](bool ok) {
      if (!ok) fail("invalid syntax for function call expression", line);
    };
    expect_op("(");
    bool first = true;
    while (!now().is_op(")")) {
      if (!first) {
        expect_op(",");
        if (now().is_op(")")) break;
      }
      first = false;
      if (skip_op("*")) {
        ensure(!e.star_args && !e.star_kwargs);
        e.star_args = expression();
      } else if (skip_op("**")) {
        ensure(!e.star_kwargs);
        e.star_kwargs = expression();
      } else if (now().type == Tok::kName && ahead().is_op("=")) {
        ensure(!e.star_kwargs);
        Value name = constant(next().text);
        next();
        e.kwargs.emplace_back(std::move(name), expression());
      } else {
        ensure(!e.star_args && !e.star_kwargs && e.kwargs.empty());
        e.args.push_back(expression());
      }
    }
    expect_op(")");
  }

  ExprPtr call(ExprPtr callee) {
    auto e = std::make_unique<Expr>(ExprKind::kCall, now().line);
    e->a = std::move(callee);
    call_args(*e);
    return done(std::move(e));
  }

  std::string dotted_name() {
    std::string name = take_name();
    while (skip_op(".")) name += "." + take_name();
    return name;
  }

  ExprPtr filters(ExprPtr input, bool first_without_pipe = false) {
    ExprPtr e = std::move(input);
    while (now().is_op("|") || first_without_pipe) {
      if (!first_without_pipe) next();
      first_without_pipe = false;
      auto filter = std::make_unique<Expr>(ExprKind::kFilter, now().line);
      filter->a = std::move(e);
      filter->value = constant(dotted_name());
      filter->filter = find_filter(filter->value.str());
      if (now().is_op("(")) call_args(*filter);
      e = done(std::move(filter));
    }
    return e;
  }

  bool bare_argument() const {
    switch (now().type) {
      case Tok::kName:
        return !now().is_name("else") && !now().is_name("or") && !now().is_name("and");
      case Tok::kString:
      case Tok::kInteger:
      case Tok::kFloat:
        return true;
      default:
        return now().is_op("[") || now().is_op("{");
    }
  }

  ExprPtr test(ExprPtr input) {
    const int line = now().line;
    next();
    const bool negated = skip_name("not");
    auto e = std::make_unique<Expr>(ExprKind::kTest, line);
    e->a = std::move(input);
    e->value = constant(dotted_name());
    e->test = find_test(e->value.str());
    if (now().is_op("(")) {
      call_args(*e);
    } else if (bare_argument()) {
      if (now().is_name("is")) fail("tests cannot be chained with 'is'");
      const Nest nest(*this);
      e->args.push_back(postfix(primary()));
    }
    ExprPtr out = done(std::move(e));
    return negated ? node(ExprKind::kNot, line, std::move(out)) : std::move(out);
  }

  std::vector<Token> tokens_;
  size_t pos_ = 0;
  int nesting_ = 0;
  int loops_ = 0;
  std::unique_ptr<Template> template_ = std::make_unique<Template>();
};

}  // namespace

std::unique_ptr<Template> parse_template(std::string_view source) {
  auto tmpl = Parser(tokenize(source)).run();
  resolve_names(*tmpl);
  return tmpl;
}

}  // namespace lorry::text::jinja
