// Expressions of jinja2's grammar. Private to the parser.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "jinja/reader.h"

namespace lorry::jinja {

/// Recursive descent with jinja2's precedences and its oddities (`~` binds tighter than `+`; a test
/// takes one bare argument; `-` before a power).
class ExpressionParser : protected TemplateReader {
 protected:
  using TemplateReader::TemplateReader;

  ExprPtr target(bool with_namespace, std::string_view end = {});
  ExprPtr target_part(bool with_namespace);
  bool tuple_end(std::string_view end) const;
  ExprPtr tuple(bool with_conditional = true, std::string_view end = {}, bool parentheses = false);
  ExprPtr expression(bool with_conditional = true);
  ExprPtr conditional();
  ExprPtr disjunction();
  ExprPtr conjunction();
  ExprPtr negation();
  bool compare_op(CompareOp& op);
  ExprPtr comparison();
  ExprPtr sum();
  ExprPtr add(ExprPtr left, ExprPtr right, int line);
  ExprPtr concat();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filter = true);
  ExprPtr primary();
  ExprPtr name_or_keyword(int line);
  ExprPtr list(int line);
  ExprPtr dict(int line);
  ExprPtr postfix(ExprPtr e);
  ExprPtr filter_or_test(ExprPtr e);
  ExprPtr subscript(ExprPtr e);
  ExprPtr subscribed();
  void call_args(Expr& e);
  ExprPtr call(ExprPtr callee);
  std::string dotted_name();
  ExprPtr filters(ExprPtr input, bool first_without_pipe = false);
  bool bare_argument() const;
  ExprPtr test(ExprPtr input);
};

}  // namespace lorry::jinja
