#include "jinja/expressions.h"

#include <fmt/format.h>

#include <algorithm>

#include "jinja/unicode.h"

namespace lorry::jinja {

ExprPtr ExpressionParser::target(bool with_namespace, std::string_view end) {
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

ExprPtr ExpressionParser::target_part(bool with_namespace) {
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

bool ExpressionParser::tuple_end(std::string_view end) const {
  if (now().type == Tok::kVariableEnd || now().type == Tok::kBlockEnd || now().is_op(")")) {
    return true;
  }
  return !end.empty() && now().is_name(end);
}

ExprPtr ExpressionParser::tuple(bool with_conditional, std::string_view end, bool parentheses) {
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

ExprPtr ExpressionParser::expression(bool with_conditional) {
  const Nest nest(*this);
  return with_conditional ? conditional() : disjunction();
}

ExprPtr ExpressionParser::conditional() {
  const int line = now().line;
  ExprPtr value = disjunction();
  while (skip_name("if")) {
    const Nest nest(*this);
    ExprPtr test = disjunction();
    ExprPtr otherwise = skip_name("else") ? conditional() : nullptr;
    value =
        node(ExprKind::kConditional, line, std::move(test), std::move(value), std::move(otherwise));
  }
  return value;
}

ExprPtr ExpressionParser::disjunction() {
  const int line = now().line;
  ExprPtr left = conjunction();
  while (skip_name("or")) left = node(ExprKind::kOr, line, std::move(left), conjunction());
  return left;
}

ExprPtr ExpressionParser::conjunction() {
  const int line = now().line;
  ExprPtr left = negation();
  while (skip_name("and")) left = node(ExprKind::kAnd, line, std::move(left), negation());
  return left;
}

ExprPtr ExpressionParser::negation() {
  const Nest nest(*this);
  const int line = now().line;
  if (skip_name("not")) return node(ExprKind::kNot, line, negation());
  return comparison();
}

bool ExpressionParser::compare_op(CompareOp& op) {
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

ExprPtr ExpressionParser::comparison() {
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

namespace {

bool is_string(const Expr& e) { return e.kind == ExprKind::kConst && e.value.is_str(); }

// `x + 'a' + 'b'` is `x + 'ab'`, whatever x is. False: there are no two strings side by side.
bool join_strings(Expr& left, const Expr& right) {
  Expr& last = left.kind == ExprKind::kAdd ? *left.args.back() : left;
  if (!is_string(last) || !is_string(right)) return false;
  auto* text = last.value.as<StrObj>();
  const bool ascii = text->ascii == 1 && is_ascii(right.value.str());
  text->append(right.value.str());
  text->ascii = ascii;
  return true;
}

}  // namespace

// One node for all terms. It counts as high as if each sum of two were a node.
ExprPtr ExpressionParser::add(ExprPtr left, ExprPtr right, int line) {
  const int height = std::max(left->height, right->height) + 1;
  if (join_strings(*left, *right)) return of_height(std::move(left), height);
  if (left->kind != ExprKind::kAdd) {
    auto e = std::make_unique<Expr>(ExprKind::kAdd, line);
    e->args.push_back(std::move(left));
    left = std::move(e);
  }
  left->args.push_back(std::move(right));
  return of_height(std::move(left), height);
}

ExprPtr ExpressionParser::sum() {
  const int line = now().line;
  ExprPtr left = concat();
  while (now().is_op("+") || now().is_op("-")) {
    const auto kind = next().text == "+" ? ExprKind::kAdd : ExprKind::kSub;
    ExprPtr right = concat();
    left = kind == ExprKind::kAdd ? add(std::move(left), std::move(right), line)
                                  : node(kind, line, std::move(left), std::move(right));
  }
  return left;
}

ExprPtr ExpressionParser::concat() {
  const int line = now().line;
  ExprPtr first = product();
  if (!now().is_op("~")) return first;
  auto e = std::make_unique<Expr>(ExprKind::kConcat, line);
  e->args.push_back(std::move(first));
  while (skip_op("~")) e->args.push_back(product());
  return done(std::move(e));
}

ExprPtr ExpressionParser::product() {
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

ExprPtr ExpressionParser::power() {
  const int line = now().line;
  ExprPtr left = unary();
  while (skip_op("**")) left = node(ExprKind::kPow, line, std::move(left), unary());
  return left;
}

ExprPtr ExpressionParser::unary(bool with_filter) {
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

ExprPtr ExpressionParser::primary() {
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

ExprPtr ExpressionParser::name_or_keyword(int line) {
  std::string name = next().text;
  if (name == "true" || name == "True") return const_node(Value::boolean(true), line);
  if (name == "false" || name == "False") return const_node(Value::boolean(false), line);
  if (name == "none" || name == "None") return const_node(Value::none(), line);
  return name_node(std::move(name), line);
}

ExprPtr ExpressionParser::list(int line) {
  auto e = std::make_unique<Expr>(ExprKind::kList, line);
  while (!now().is_op("]")) {
    if (!e->args.empty()) expect_op(",");
    if (now().is_op("]")) break;
    e->args.push_back(expression());
  }
  expect_op("]");
  return done(std::move(e));
}

ExprPtr ExpressionParser::dict(int line) {
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

ExprPtr ExpressionParser::postfix(ExprPtr e) {
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

ExprPtr ExpressionParser::filter_or_test(ExprPtr e) {
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

ExprPtr ExpressionParser::subscript(ExprPtr e) {
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
    attribute->loop_field = find_loop_field(attribute->value.str());
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

ExprPtr ExpressionParser::subscribed() {
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

void ExpressionParser::call_args(Expr& e) {
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

ExprPtr ExpressionParser::call(ExprPtr callee) {
  auto e = std::make_unique<Expr>(ExprKind::kCall, now().line);
  e->a = std::move(callee);
  call_args(*e);
  return done(std::move(e));
}

std::string ExpressionParser::dotted_name() {
  std::string name = take_name();
  while (skip_op(".")) name += "." + take_name();
  return name;
}

ExprPtr ExpressionParser::filters(ExprPtr input, bool first_without_pipe) {
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

bool ExpressionParser::bare_argument() const {
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

ExprPtr ExpressionParser::test(ExprPtr input) {
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

}  // namespace lorry::jinja
