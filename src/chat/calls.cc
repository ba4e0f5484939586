#include "chat/calls.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/result.h"
#include "jinja/interp.h"

namespace lorry::chat {
namespace {

/// The arguments of a function, null if it has none. Text that is JSON is parsed.
Json arguments_of(const Json& function) {
  Json arguments = function.value("arguments", Json());
  if (!arguments.is_string()) return arguments;
  auto parsed = parse_json(arguments.get_ref<const std::string&>(), "arguments");
  return parsed.ok() ? std::move(*parsed) : arguments;
}

void collect_texts(const Json& value, std::vector<const std::string*>& texts) {
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    if (!text.empty()) texts.push_back(&text);
  } else if (value.is_structured()) {
    for (const Json& inner : value) collect_texts(inner, texts);
  }
}

// Whether the text holds the words, plain or escaped as in a JSON string.
bool shows(std::string_view text, const std::string& words) {
  if (text.find(words) != text.npos) return true;
  const std::string quoted = python_json(words);
  return text.find(std::string_view(quoted).substr(1, quoted.size() - 2)) != text.npos;
}

bool shows_arguments(std::string_view text, const Json& function) {
  const auto given = function.find("arguments");
  if (given == function.end()) return true;
  const Json parsed = given->is_string() ? arguments_of(function) : Json();
  std::vector<const std::string*> texts;
  collect_texts(given->is_string() ? parsed : *given, texts);
  const auto is_shown = [&](const std::string* words) { return shows(text, *words); };
  return texts.empty() || std::any_of(texts.begin(), texts.end(), is_shown);
}

}  // namespace

std::string python_json(const Json& value) {
  std::string out;
  jinja::append_json(jinja::from_json(value), {}, 0, out);
  return out;
}

bool has_calls(const Json& message) {
  const auto calls = message.find("tool_calls");
  return calls != message.end() && calls->is_array() && !calls->empty();
}

const Json& function_of(const Json& call) {
  const auto function = call.find("function");
  return function != call.end() && function->is_object() ? *function : call;
}

Json& function_of(Json& call) { return const_cast<Json&>(function_of(std::as_const(call))); }

void fold_calls(Json& message) {
  std::string text = message.contains("content") && message["content"].is_string()
                         ? message["content"].get<std::string>()
                         : std::string();
  for (Json& call : message["tool_calls"]) {
    if (!call.is_object()) continue;
    Json& function = function_of(call);
    const Json arguments = function.contains("arguments") ? arguments_of(function) : Json::object();
    if (!text.empty()) text += '\n';
    text += python_json(Json{{"name", function.value("name", Json())}, {"arguments", arguments}});
  }
  message["content"] = std::move(text);
  message.erase("tool_calls");
}

std::optional<std::string_view> after_call(const Json& call, std::string_view text) {
  if (!call.is_object()) return text;
  const Json& function = function_of(call);
  const auto name = function.find("name");
  if (name == function.end() || !name->is_string()) return text;
  const auto& words = name->get_ref<const std::string&>();
  const size_t at = text.find(words);
  if (at == text.npos || !shows_arguments(text, function)) return std::nullopt;
  return text.substr(at + words.size());
}

}  // namespace lorry::chat
