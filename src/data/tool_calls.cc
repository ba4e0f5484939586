#include "data/tool_calls.h"

#include <nlohmann/json.hpp>

#include "data/row_values.h"

namespace lorry::data {
namespace {

/// {"type": "function", "function": {"name", "arguments": object}} from what data sets write:
/// OpenAI's form, or {"name", "arguments"}; arguments as an object or a JSON string of one.
std::optional<Json> tool_call(const Json& given) {
  if (!given.is_object()) return std::nullopt;
  Json call = given;
  if (!call.contains("function")) {
    if (!call.contains("name") || !call["name"].is_string()) return std::nullopt;
    Json function = std::move(call);
    call = Json{{"type", "function"}, {"function", std::move(function)}};
  }
  Json& function = call["function"];
  if (!function.is_object() || !field(function, "name").is_string()) return std::nullopt;
  if (!function.contains("arguments") && function.contains("parameters")) {
    function["arguments"] = function["parameters"];
    function.erase("parameters");
  }
  if (!function.contains("arguments")) function["arguments"] = Json::object();
  Json arguments = parsed(function["arguments"]);
  if (arguments.is_object()) function["arguments"] = std::move(arguments);
  return call;
}

}  // namespace

std::optional<Json> tool_calls(const Json& given) {
  const Json value = parsed(given);
  Json calls = Json::array();
  if (value.is_array()) {
    for (const auto& each : value) {
      auto call = tool_call(parsed(each));
      if (!call) return std::nullopt;
      calls.push_back(std::move(*call));
    }
  } else {
    auto call = tool_call(value);
    if (!call) return std::nullopt;
    calls.push_back(std::move(*call));
  }
  if (calls.empty()) return std::nullopt;
  return calls;
}

}  // namespace lorry::data
