#include "jinja/reader.h"

#include <fmt/format.h>

#include "jinja/unicode.h"

namespace lorry::jinja {
namespace {

// A template nests neither deeper than this in its text nor higher than that as a tree.
constexpr int kMaxNesting = 150;
constexpr int kMaxHeight = 1000;

}  // namespace

TemplateReader::Nest::Nest(TemplateReader& p) : parser(p) {
  if (++parser.nesting_ > kMaxNesting) parser.fail("the template is nested too deeply");
}

void TemplateReader::fail(std::string message, int line) {
  throw TemplateError{std::move(message), line > 0 ? line : now().line};
}

std::string TemplateReader::describe(const Token& t) const {
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

std::string TemplateReader::take_name() {
  if (now().type != Tok::kName) fail(fmt::format("expected a name, got '{}'", describe(now())));
  return next().text;
}

void TemplateReader::expect(Tok type) {
  if (now().type != type) {
    Token wanted;
    wanted.type = type;
    fail(fmt::format("expected {}, got '{}'", describe(wanted), describe(now())));
  }
  next();
}

Value TemplateReader::constant(std::string s) {
  auto obj = std::make_unique<StrObj>(std::move(s));
  obj->refs = -1;
  obj->ascii = is_ascii(obj->view);
  template_->constants.push_back(std::move(obj));
  return Value::object(Type::kStr, template_->constants.back().get());
}

ExprPtr TemplateReader::done(ExprPtr e) {
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
  return of_height(std::move(e), height + 1);
}

ExprPtr TemplateReader::of_height(ExprPtr e, int height) {
  e->height = height;
  if (e->height > kMaxHeight) fail("an expression is too long", e->line);
  return e;
}

ExprPtr TemplateReader::node(ExprKind kind, int line, ExprPtr a, ExprPtr b, ExprPtr c) {
  auto e = std::make_unique<Expr>(kind, line);
  e->a = std::move(a);
  e->b = std::move(b);
  e->c = std::move(c);
  return done(std::move(e));
}

ExprPtr TemplateReader::const_node(Value value, int line) {
  auto e = std::make_unique<Expr>(ExprKind::kConst, line);
  e->value = std::move(value);
  return e;
}

ExprPtr TemplateReader::name_node(std::string name, int line) {
  auto e = std::make_unique<Expr>(ExprKind::kName, line);
  e->value = constant(std::move(name));
  return e;
}

void TemplateReader::expect_op(std::string_view op) {
  if (!skip_op(op)) fail(fmt::format("expected '{}', got '{}'", op, describe(now())));
}

void TemplateReader::expect_name(std::string_view name) {
  if (!skip_name(name)) fail(fmt::format("expected '{}', got '{}'", name, describe(now())));
}

}  // namespace lorry::jinja
