// Cuts a template into tokens as jinja2's lexer does with trim_blocks and lstrip_blocks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lorry::jinja {

enum class Tok : uint8_t {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,  ///< its spelling is the text
  kEof,
};

struct Token {
  Tok type = Tok::kEof;
  int line = 1;
  std::string text;  ///< data, name, operator, or the unescaped string
  int64_t integer = 0;
  double real = 0;

  bool is_name(std::string_view name) const { return type == Tok::kName && text == name; }
  bool is_op(std::string_view op) const { return type == Tok::kOperator && text == op; }
};

/// Raises TemplateError. The last token is kEof.
std::vector<Token> tokenize(std::string_view source);

}  // namespace lorry::jinja
