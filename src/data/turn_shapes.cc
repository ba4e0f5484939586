#include "data/turn_shapes.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <utility>

#include "data/python_literal.h"
#include "data/row_values.h"

namespace lorry::data {
namespace {

Json turn(const char* role, const Json& content) {
  return Json{{"role", role}, {"content", content}};
}

template <typename Is>
bool all_are(const Json& list, Is is) {
  return !list.empty() && std::all_of(list.begin(), list.end(), is);
}

Json alternating(const Json& texts) {
  Json turns = Json::array();
  for (size_t i = 0; i < texts.size(); ++i) {
    turns.push_back(turn(i % 2 == 0 ? "user" : "assistant", texts[i]));
  }
  return turns;
}

bool is_pair(const Json& value) {
  return value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string();
}

Json turns_of_pairs(const Json& pairs) {
  Json turns = Json::array();
  for (const Json& pair : pairs) turns.push_back(Json{{"role", pair[0]}, {"content", pair[1]}});
  return turns;
}

/// The role of a key of {"system", "input", "output"} and its like.
std::optional<Role> role_of_key(const std::string& key, const RoleNames& roles) {
  if (key == "input") return Role::kUser;
  if (key == "output") return Role::kAssistant;
  const auto role = find_role(key, roles);
  const bool speaks =
      role && (*role == Role::kSystem || *role == Role::kUser || *role == Role::kAssistant);
  return speaks ? role : std::nullopt;
}

bool has_role(const Json& object) { return object.contains("role") || object.contains("from"); }

/// {"user": "q", "assistant": "a"}; null values are absent.
bool is_named_by_roles(const Json& value, const RoleNames& roles) {
  if (!value.is_object() || has_role(value)) return false;
  bool asks = false, answers = false;
  for (const auto& [key, text] : value.items()) {
    const auto role = role_of_key(key, roles);
    if (!role) continue;
    if (!text.is_string() && !text.is_null()) return false;
    asks |= *role == Role::kUser;
    answers |= *role == Role::kAssistant;
  }
  return asks || answers;
}

/// In the order in which they speak, whatever that of the keys.
void add_named_turns(const Json& named, const RoleNames& roles, Json& turns) {
  for (const Role wanted : {Role::kSystem, Role::kUser, Role::kAssistant}) {
    for (const auto& [key, text] : named.items()) {
      if (text.is_null() || role_of_key(key, roles) != wanted) continue;
      if (wanted == Role::kSystem && is_blank(text.get_ref<const std::string&>())) continue;
      turns.push_back(turn(role_name(wanted), text));
    }
  }
}

bool is_tool_result(const Json& part) {
  return part.is_object() && part.contains("type") && part["type"] == "tool_result";
}

bool holds_tool_results(const Json& turn) {
  const auto content = turn.is_object() ? turn.find("content") : turn.end();
  return turn.is_object() && content != turn.end() && content->is_array() &&
         std::any_of(content->begin(), content->end(), is_tool_result);
}

/// Its content: a text or text parts, which may be written as JSON.
Json words_of_result(const Json& result) {
  const auto content = result.find("content");
  if (content == result.end() || content->is_null()) return "";
  if (!content->is_string() || !content->get_ref<const std::string&>().starts_with('[')) {
    return *content;
  }
  Json parts = parsed(*content);
  const auto is_part = [](const Json& part) { return part.is_object() && part.contains("type"); };
  return parts.is_array() && all_are(parts, is_part) ? parts : *content;
}

/// Anthropic's results of tools are parts of a user's turn: each becomes a turn of the tool's, and
/// what is left of the user's comes after them.
void add_apart(const Json& given, Json& turns) {
  Json rest = given;
  rest["content"] = Json::array();
  for (const Json& part : given["content"]) {
    if (!is_tool_result(part)) {
      rest["content"].push_back(part);
      continue;
    }
    Json result = turn("tool", words_of_result(part));
    if (part.contains("tool_use_id")) result["tool_call_id"] = part["tool_use_id"];
    turns.push_back(std::move(result));
  }
  if (!rest["content"].empty()) turns.push_back(std::move(rest));
}

/// The turns, but each of which `holds` is true replaced by those that `add` appends for it.
Json with_replaced(Json turns, bool (*holds)(const Json&), void (*add)(const Json&, Json&)) {
  if (!turns.is_array() || std::none_of(turns.begin(), turns.end(), holds)) return turns;
  Json out = Json::array();
  for (Json& each : turns) {
    if (holds(each)) {
      add(each, out);
    } else {
      out.push_back(std::move(each));
    }
  }
  return out;
}

/// The value of the first of the keys that is not null.
const Json& first_of(const Json& object, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    const Json& value = field(object, key);
    if (!value.is_null()) return value;
  }
  return field(object, "");
}

/// Gemini's turns have `parts` in place of a content.
bool has_parts(const Json& turn) {
  return field(turn, "parts").is_array() && field(turn, "content").is_null() &&
         field(turn, "value").is_null();
}

Json usual_part(const Json& part) {
  const Json& call = first_of(part, {"functionCall", "function_call"});
  if (!call.is_null()) return Json{{"functionCall", call}};
  const Json& text = field(part, "text");
  if (text.is_string()) {
    const char* type = field(part, "thought") == true ? "thinking" : "text";
    return Json{{"type", type}, {type, text}};
  }
  if (!part.is_object()) return part;
  for (const auto& [key, value] : part.items()) {
    if (!value.is_null()) return Json{{"type", key}};  // which is refused by name
  }
  return Json();
}

/// {"name", "response"}: what a tool gave.
Json turn_of_response(const Json& response) {
  const Json& given = field(response, "response");
  Json result = turn("tool", given.is_string() ? given : Json(dump_json(given)));
  for (const auto& [from, to] : {std::pair("name", "name"), std::pair("id", "tool_call_id")}) {
    if (field(response, from).is_string()) result[to] = field(response, from);
  }
  return result;
}

/// As many turns: results of tools are turns of their own, and what else the turn says follows.
void add_of_parts(const Json& given, Json& turns) {
  Json rest = given;
  rest.erase("parts");
  rest["content"] = Json::array();
  bool has_results = false;
  for (const Json& part : given["parts"]) {
    const Json& response = first_of(part, {"functionResponse", "function_response"});
    has_results |= !response.is_null();
    if (response.is_null()) {
      rest["content"].push_back(usual_part(part));
    } else {
      turns.push_back(turn_of_response(response));
    }
  }
  if (!rest["content"].empty() || !has_results) turns.push_back(std::move(rest));
}

}  // namespace

bool is_role_key(const std::string& key, const RoleNames& roles) {
  return role_of_key(key, roles).has_value();
}

Result<Json> list_of_turns(const Json& given) {
  Json turns = parsed(given);
  if (turns.is_discarded()) {
    if (auto literal = parse_python_literal(given.get_ref<const std::string&>())) {
      turns = *std::move(literal);
    }
  }
  LORRY_ASSIGN(turns, rows_of_columns(std::move(turns)));
  if (turns.is_array() || turns.is_null()) return turns;
  return invalid_input(fmt::format("it is {}, not a list of turns",
                                   described(turns.is_discarded() ? given : turns)));
}

Result<Json> usual_turns(Json turns, const RoleNames& roles) {
  if (all_are(turns, [](const Json& each) { return each.is_string(); })) {
    return alternating(turns);
  }
  if (all_are(turns, is_pair)) {
    const auto& first = turns[0][0].get_ref<const std::string&>();
    if (find_role(first, roles)) return turns_of_pairs(turns);
    return invalid_input(
        fmt::format("it is a list of pairs, and \"{}\" is no role; [role, text] pairs, objects "
                    "with a role and a content, or strings by turns make a conversation",
                    first));
  }
  if (!all_are(turns, [&](const Json& each) { return is_named_by_roles(each, roles); })) {
    return with_replaced(with_replaced(std::move(turns), has_parts, add_of_parts),
                         holds_tool_results, add_apart);
  }
  Json usual = Json::array();
  for (const Json& each : turns) add_named_turns(each, roles, usual);
  return usual;
}

}  // namespace lorry::data
