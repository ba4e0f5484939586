#include "tokenizer/pattern.h"

#include <nlohmann/json.hpp>

namespace lorry::tokenizer {
namespace {

std::string escaped(std::string_view literal) {
  std::string out;
  for (const char c : literal) {
    const bool word = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (!word && c > ' ' && c < 0x7F) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

Result<Regex> parse_pattern(const Json& json, std::string_view where) {
  const auto it = json.find("pattern");
  if (it != json.end() && it->is_object()) {
    if (const auto s = it->find("String"); s != it->end() && s->is_string()) {
      return Regex::compile(escaped(s->get_ref<const std::string&>())).with_context(where);
    }
    if (const auto r = it->find("Regex"); r != it->end() && r->is_string()) {
      return Regex::compile(r->get_ref<const std::string&>()).with_context(where);
    }
  }
  return invalid_input(std::string(where) + ": no pattern {\"String\"} or {\"Regex\"}");
}

Result<std::string> string_field(const Json& json, const char* name, std::string_view where) {
  const auto it = json.find(name);
  if (it == json.end() || !it->is_string()) {
    return invalid_input(std::string(where) + ": no string '" + name + "'");
  }
  return it->get<std::string>();
}

Result<bool> bool_field(const Json& json, const char* name, std::string_view where) {
  const auto it = json.find(name);
  if (it == json.end() || !it->is_boolean()) {
    return invalid_input(std::string(where) + ": no true or false '" + name + "'");
  }
  return it->get<bool>();
}

bool bool_field_or(const Json& json, const char* name, bool otherwise) {
  const auto it = json.find(name);
  return it != json.end() && it->is_boolean() ? it->get<bool>() : otherwise;
}

std::string type_of(const Json& json) {
  if (!json.is_object()) return "";
  const auto it = json.find("type");
  return it != json.end() && it->is_string() ? it->get<std::string>() : "";
}

}  // namespace lorry::tokenizer
