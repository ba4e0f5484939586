// The tokens of a template, read one by one, and the nodes of its tree. Private to the parser.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "jinja/ast.h"
#include "jinja/lexer.h"

namespace lorry::jinja {

/// Throws TemplateError, with the line, where a token is not what is expected or a tree would nest
/// too deeply.
class TemplateReader {
 protected:
  explicit TemplateReader(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& now() const { return tokens_[pos_]; }
  const Token& ahead() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  Token& next() {
    Token& token = tokens_[pos_];
    if (pos_ + 1 < tokens_.size()) ++pos_;
    return token;
  }
  [[noreturn]] void fail(std::string message, int line = 0);
  std::string describe(const Token& t) const;
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
  void expect_op(std::string_view op);
  void expect_name(std::string_view name);
  std::string take_name();
  void expect(Tok type);
  Value constant(std::string s);

  struct Nest {
    explicit Nest(TemplateReader& p);
    ~Nest() { --parser.nesting_; }
    TemplateReader& parser;
  };
  // Records the tree's height, so that nothing later recurses without bound.
  ExprPtr done(ExprPtr e);
  // The same for a node whose height is known.
  ExprPtr of_height(ExprPtr e, int height);
  ExprPtr node(ExprKind kind, int line, ExprPtr a = nullptr, ExprPtr b = nullptr,
               ExprPtr c = nullptr);
  ExprPtr const_node(Value value, int line);
  ExprPtr name_node(std::string name, int line);

  std::vector<Token> tokens_;
  size_t pos_ = 0;
  int nesting_ = 0;
  std::unique_ptr<Template> template_ = std::make_unique<Template>();
};

}  // namespace lorry::jinja
