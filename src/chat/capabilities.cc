#include "chat/capabilities.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "chat/calls.h"
#include "jinja/interp.h"

namespace lorry::chat {

namespace {

constexpr const char* kCallName = "lorry_probe_call";
constexpr const char* kCallId = "call00001";
constexpr const char* kPartText = "lorry probe part";

Json user_message() { return {{"role", "user"}, {"content", "lorry probe question"}}; }

Json probe_arguments() { return {{"lorry_probe_key", "lorry probe value"}}; }

Json call_message(bool arguments_as_object, const char* id = kCallId) {
  Json function{{"name", kCallName}};
  function["arguments"] =
      arguments_as_object ? probe_arguments() : Json(python_json(probe_arguments()));
  Json call = Json::object();
  if (id != nullptr) call["id"] = id;
  call["type"] = "function";
  call["function"] = std::move(function);
  return {{"role", "assistant"}, {"tool_calls", Json::array({std::move(call)})}};
}

Json probe_tools() {
  Json parameters{{"type", "object"},
                  {"properties", {{"lorry_probe_key", {{"type", "string"}}}}},
                  {"required", Json::array({"lorry_probe_key"})}};
  Json function{
      {"name", "lorry_other_call"}, {"description", "A probe."}, {"parameters", parameters}};
  return Json::array({Json{{"type", "function"}, {"function", std::move(function)}}});
}

enum class Outcome { kFails, kLost, kRendered };

class Probe {
 public:
  explicit Probe(const ProbeRender& render) : render_(render) {}

  // What becomes of a call; `content` of type discarded: no such key.
  Outcome call(bool arguments_as_object, const Json* content, const char* id = kCallId) const {
    Json message = call_message(arguments_as_object, id);
    if (content != nullptr) message["content"] = *content;
    const Json messages = Json::array({user_message(), std::move(message)});
    Outcome best = Outcome::kFails;
    for (const Json& tools : {Json(), probe_tools()}) {
      const auto text = render_(messages, tools);
      if (!text.ok()) continue;
      const bool there = text->find(kCallName) != std::string::npos;
      best = std::max(best, there ? Outcome::kRendered : Outcome::kLost);
    }
    return best;
  }

  Outcome call_any_arguments(const Json* content) const {
    return std::max(call(true, content), call(false, content));
  }

  // Whether a list of parts comes out as its text and nothing of the list.
  bool parts(const Json& before, Json message) const {
    Json messages = before;
    messages.push_back(message);
    Json& content = messages.back()["content"];
    content = kPartText;
    const auto plain = render_(messages, Json());
    if (!plain.ok()) return true;  // this role is refused anyway: not the list's doing
    content = Json::array({Json{{"type", "text"}, {"text", kPartText}}});
    const auto text = render_(messages, Json());
    if (!text.ok() || text->find(kPartText) == std::string::npos) {
      return text.ok() && plain->find(kPartText) == std::string::npos;
    }
    return text->find("'type'") == std::string::npos && text->find("\"type\"") == std::string::npos;
  }

 private:
  const ProbeRender& render_;
};

}  // namespace

bool ChatCapabilities::takes_parts(std::string_view role) const {
  if (role == "assistant") return takes_parts_assistant;
  if (role == "system" || role == "developer") return takes_parts_system;
  return role == "user" ? takes_parts_user : takes_parts_tool;
}

ChatCapabilities probe_capabilities(const ProbeRender& render) {
  const Probe probe(render);
  const Json null;
  const Json empty = "";
  ChatCapabilities out;
  const Outcome absent = probe.call_any_arguments(nullptr);
  const Outcome with_null = probe.call_any_arguments(&null);
  const Outcome with_empty = probe.call_any_arguments(&empty);
  const Json* best = nullptr;
  Outcome outcome = absent;
  if (with_null > outcome) {
    outcome = with_null;
    best = &null;
    out.no_content = ChatCapabilities::NoContent::kNull;
  }
  if (with_empty > outcome) {
    outcome = with_empty;
    best = &empty;
    out.no_content = ChatCapabilities::NoContent::kEmpty;
  }
  out.renders_tool_calls = outcome != Outcome::kLost;
  if (outcome == Outcome::kRendered) {
    const bool object = probe.call(true, best) != Outcome::kFails;
    const bool string = probe.call(false, best) != Outcome::kFails;
    out.takes_object_arguments = object || !string;
    out.takes_string_arguments = string || !object;
    const auto takes_id = [&](const char* id) {
      return probe.call(out.takes_object_arguments, best, id) != Outcome::kFails;
    };
    out.needs_call_ids = !takes_id("call_abc123XYZ") || !takes_id(nullptr);
  }
  const Json user = Json::array({user_message()});
  out.takes_parts_user = probe.parts(Json::array(), user_message());
  out.takes_parts_assistant = probe.parts(user, {{"role", "assistant"}});
  Json system{{"role", "system"}, {"content", kPartText}};
  Json with_system = Json::array({system, user_message()});
  const auto plain = render(with_system, Json());
  if (plain.ok() && plain->find(kPartText) != std::string::npos) {
    with_system[0]["content"] = Json::array({Json{{"type", "text"}, {"text", kPartText}}});
    const auto text = render(with_system, Json());
    out.takes_parts_system = text.ok() && text->find(kPartText) != std::string::npos &&
                             text->find("'type'") == std::string::npos;
  }
  Json call = call_message(out.takes_object_arguments);
  if (best != nullptr) call["content"] = *best;
  out.takes_parts_tool =
      probe.parts(Json::array({user_message(), std::move(call)}),
                  {{"role", "tool"}, {"name", kCallName}, {"tool_call_id", kCallId}});
  return out;
}

namespace {

constexpr std::array<std::string_view, 3> kReasoning = {"reasoning_content", "thinking",
                                                        "reasoning"};

// Reasoning under the names that templates read (`transformers`' _alias_reasoning_fields).
void alias_reasoning(Json& message) {
  for (const std::string_view field : kReasoning) {
    const auto it = message.find(field);
    if (it == message.end()) continue;
    const Json reasoning = *it;
    if (!message.contains("thinking")) {
      Json with{{"thinking", reasoning}};  // in front, as Python's dict merge puts it
      with.update(message);
      message = std::move(with);
    }
    message["reasoning_content"] = reasoning;
    return;
  }
}

std::string part_text(const Json& part) {
  if (part.is_string()) return part.get<std::string>();
  for (const char* key : {"text", "value"}) {
    if (part.contains(key) && part[key].is_string()) return part[key].get<std::string>();
  }
  return {};
}

bool all_text(const Json& parts) {
  for (const Json& part : parts) {
    if (part.is_string()) continue;
    if (!part.is_object() || part.value("type", Json("text")) != "text") return false;
  }
  return true;
}

void adapt_parts(Json& message, const ChatCapabilities& capabilities) {
  const auto content = message.find("content");
  if (content == message.end() || !content->is_array() || !all_text(*content)) return;
  const auto role = message.find("role");
  const bool taken = role == message.end() || !role->is_string() ||
                     capabilities.takes_parts(role->get_ref<const std::string&>());
  if (!taken) {
    std::string joined;
    for (const Json& part : *content) joined += part_text(part);
    *content = std::move(joined);
    return;
  }
  for (Json& part : *content) {
    if (part.is_object() && !part.contains("text") && part.contains("value")) {
      part["text"] = part["value"];
    }
  }
}

void adapt_arguments(Json& call, const ChatCapabilities& capabilities) {
  if (!call.is_object()) return;
  Json& function = function_of(call);
  const auto arguments = function.find("arguments");
  if (arguments == function.end()) return;
  if (arguments->is_object() && !capabilities.takes_object_arguments) {
    *arguments = python_json(*arguments);
  } else if (arguments->is_string() && !capabilities.takes_string_arguments) {
    const auto parsed = parse_json(arguments->get_ref<const std::string&>(), "arguments");
    if (parsed.ok() && parsed->is_object()) *arguments = *parsed;
  }
}

bool has_no_words(const Json& message) {
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) return true;
  return content->is_string() && content->get_ref<const std::string&>().empty();
}

void adapt_calls(Json& message, const ChatCapabilities& capabilities) {
  if (!has_calls(message)) return;
  if (!capabilities.renders_tool_calls) return fold_calls(message);
  for (Json& call : message["tool_calls"]) adapt_arguments(call, capabilities);
  if (!has_no_words(message)) return;
  // A template may look for calls only where the content is null or missing, not where it is "".
  using NoContent = ChatCapabilities::NoContent;
  if (capabilities.no_content == NoContent::kAbsent) message.erase("content");
  if (capabilities.no_content == NoContent::kNull) message["content"] = nullptr;
  if (capabilities.no_content == NoContent::kEmpty) message["content"] = "";
}

}  // namespace

namespace {

// Whether `transformers` hands the message to a template as it is.
bool is_plain(const Json& message) {
  for (const auto& [key, value] : message.get_ref<const Json::object_t&>()) {
    if (value.is_null()) return false;
    for (const std::string_view name : kReasoning) {
      if (jinja::same_text(key, name)) return false;
    }
  }
  return true;
}

Json prepared(const Json& message) {
  Json copy = Json::object();
  auto& fields = copy.get_ref<Json::object_t&>();
  for (const auto& [key, value] : message.get_ref<const Json::object_t&>()) {
    if (!value.is_null()) fields.emplace_back(key, value);
  }
  alias_reasoning(copy);
  return copy;
}

}  // namespace

Result<const Json*> prepare_messages(const Json& messages, Json& changed) {
  if (!messages.is_array()) return invalid_input("messages: expected a list");
  if (messages.empty()) return invalid_input("messages: the conversation is empty");
  bool plain = true;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!messages[i].is_object()) {
      return invalid_input(
          fmt::format("messages[{}]: expected an object with role and content", i));
    }
    plain = plain && is_plain(messages[i]);
  }
  if (plain) return &messages;
  changed = Json::array();
  for (const Json& message : messages) changed.push_back(prepared(message));
  return &changed;
}

const Json* join_parts(const Json& prepared, const ChatCapabilities& capabilities, Json& changed) {
  const bool any = std::any_of(prepared.begin(), prepared.end(), [](const Json& message) {
    const auto content = message.find("content");
    return content != message.end() && content->is_array();
  });
  if (!any) return &prepared;
  Json joined = prepared;
  for (Json& message : joined) adapt_parts(message, capabilities);
  changed = std::move(joined);
  return &changed;
}

Result<Json> adapt_messages(Json prepared, const ChatCapabilities& capabilities) {
  try {
    for (Json& message : prepared) adapt_calls(message, capabilities);
    return prepared;
  } catch (const jinja::TemplateError& e) {
    return invalid_input("messages: " + e.message);
  } catch (const std::exception& e) {
    return invalid_input(fmt::format("messages: {}", e.what()));
  }
}

}  // namespace lorry::chat
