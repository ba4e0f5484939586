#include "data/tool_calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "data/row_values.h"

namespace lorry::data {
namespace {

constexpr size_t kQuoted = 60;  // bytes of a value in messages
constexpr std::array<std::string_view, 4> kArgumentKeys = {"arguments", "args", "input",
                                                           "parameters"};
/// Beside the function of a bare call: they are the call's.
constexpr std::array<std::string_view, 3> kCallKeys = {"id", "type", "index"};

bool is_one_of(std::string_view key, const auto& keys) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

std::string quoted(const Json& value) {
  if (!value.is_string()) return described(value);
  const auto& text = value.get_ref<const std::string&>();
  if (text.size() <= kQuoted) return "text: " + text;
  return "text: " + text.substr(0, utf8_start(text, kQuoted)) + "...";
}

Result<Json> arguments_from(const std::string& name, const Json& given) {
  if (given.is_null() || given == "") return Json::object();
  Json arguments = parsed(given);
  if (arguments.is_object()) return arguments;
  return invalid_input(fmt::format("the arguments of the tool call {} are no JSON object, but {}",
                                   name, quoted(given)));
}

/// {"name", "arguments": object, ...} of a function that has a name.
Result<Json> function_from(const Json& given) {
  const std::string name = field(given, "name").get<std::string>();
  std::string arguments_key, unknown;
  for (const auto& [key, value] : given.items()) {
    if (is_one_of(key, kArgumentKeys) && (arguments_key.empty() || given[arguments_key].is_null()))
      arguments_key = key;
    if (!is_one_of(key, kArgumentKeys) && key != "name" && !value.is_null()) unknown = key;
  }
  if (arguments_key.empty() && !unknown.empty())
    return invalid_input(fmt::format(
        "the tool call {} has no arguments, but {}; call them \"arguments\"", name, unknown));
  Json function = Json::object();
  for (const auto& [key, value] : given.items()) {
    if (key != arguments_key && is_one_of(key, kArgumentKeys) && value.is_null()) continue;
    if (key != arguments_key) {
      function[key] = value;
      continue;
    }
    LORRY_ASSIGN(function["arguments"], arguments_from(name, value));
  }
  if (arguments_key.empty()) function["arguments"] = Json::object();
  return function;
}

/// {"name", "arguments", "id", "type"}: what belongs to the call, then the function.
Result<Json> bare_call(const Json& given) {
  Json call = Json::object(), function = Json::object();
  for (const auto& [key, value] : given.items()) {
    if (!is_one_of(key, kCallKeys)) function[key == "function" ? "name" : key] = value;
  }
  if (field(given, "id").is_string()) call["id"] = given["id"];
  call["type"] = "function";
  LORRY_ASSIGN(call["function"], function_from(function));
  return call;
}

/// Null if it is no call.
Result<Json> tool_call(const Json& given) {
  for (const char* key : {"functionCall", "function_call"}) {
    if (field(given, key).is_object()) return tool_call(given[key]);
  }
  const Json& function = field(given, "function");
  if (function.is_string() || field(given, "name").is_string()) return bare_call(given);
  if (!field(function, "name").is_string()) return Json();
  Json call = given;
  LORRY_ASSIGN(call["function"], function_from(function));
  return call;
}

/// The JSON between <tool_call> and </tool_call>, as Hermes writes calls; an empty list if the text
/// holds anything else.
Json hermes_calls(std::string_view text) {
  constexpr std::string_view kBegin = "<tool_call>", kEnd = "</tool_call>";
  Json calls = Json::array();
  while (!is_blank(text)) {
    text.remove_prefix(text.find_first_not_of(" \t\n\v\f\r"));
    const size_t end = text.find(kEnd);
    if (!text.starts_with(kBegin) || end == text.npos) return Json::array();
    calls.push_back(parsed(Json(text.substr(kBegin.size(), end - kBegin.size()))));
    text.remove_prefix(end + kEnd.size());
  }
  return calls;
}

void add_declarations(const Json& tool, Json& tools) {
  for (const char* key : {"functionDeclarations", "function_declarations"}) {
    for (const Json& each : field(tool, key)) tools.push_back(each);
  }
}

/// Gemini's lists of declarations in a tool, spread.
Json spread(const Json& tools) {
  Json out = Json::array();
  for (const Json& tool : tools) {
    const size_t before = out.size();
    add_declarations(tool, out);
    if (out.size() == before) out.push_back(tool);
  }
  return out;
}

/// Null if it defines nothing.
Json tool_definition(const Json& tool) {
  if (field(field(tool, "function"), "name").is_string()) return tool;
  if (!field(tool, "name").is_string()) return {};
  Json function = Json::object();
  for (const auto& [key, value] : tool.items()) {
    if (key != "type") function[key == "input_schema" ? "parameters" : key] = value;
  }
  return {{"type", "function"}, {"function", std::move(function)}};
}

}  // namespace

Result<Json> tool_calls(const Json& given) {
  Json value = parsed(given);
  if (value.is_discarded()) value = hermes_calls(given.get_ref<const std::string&>());
  if (!value.is_array()) value = Json::array({value});
  Json calls = Json::array();
  for (const Json& each : value) {
    LORRY_ASSIGN(Json call, tool_call(parsed(each)));
    if (call.is_null()) return Json();
    calls.push_back(std::move(call));
  }
  return calls.empty() ? Json() : calls;
}

Result<Json> tool_definitions(const Json& given) {
  const Json tools = spread(given.is_array() ? given : Json::array({given}));
  Json out = Json::array();
  for (size_t i = 0; i < tools.size(); ++i) {
    Json tool = parsed(tools[i]);
    Json definition = tool.is_discarded() ? Json() : tool_definition(tool);
    if (definition.is_null())
      return invalid_input(
          fmt::format("tool {} is not a definition such as {{\"name\", \"description\", "
                      "\"parameters\"}}, but {}",
                      i, quoted(tools[i])));
    out.push_back(std::move(definition));
  }
  return out;
}

}  // namespace lorry::data
