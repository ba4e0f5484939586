#include "chat/samples.h"

#include <nlohmann/json.hpp>

namespace lorry::chat {

namespace {

Json message(const char* role, const char* content) {
  return {{"role", role}, {"content", content}};
}

Json call_message(Json content) {
  Json function{{"name", "look_up"}, {"arguments", {{"word", "lorry"}}}};
  Json call{{"id", "call00001"}, {"type", "function"}, {"function", std::move(function)}};
  return {{"role", "assistant"},
          {"content", std::move(content)},
          {"tool_calls", Json::array({std::move(call)})}};
}

Json call_result() {
  Json result = message("tool", "A truck.");
  result["name"] = "look_up";
  result["tool_call_id"] = "call00001";
  return result;
}

Json with_reasoning(Json message) {
  message["reasoning_content"] = "Let me see.";
  return message;
}

Json tools() {
  Json parameters{{"type", "object"},
                  {"properties", {{"word", {{"type", "string"}}}}},
                  {"required", Json::array({"word"})}};
  Json function{{"name", "look_up"},
                {"description", "Explains a word."},
                {"parameters", std::move(parameters)}};
  return Json::array({Json{{"type", "function"}, {"function", std::move(function)}}});
}

std::vector<SampleConversation> make_samples() {
  const Json system = message("system", "Be brief."), user = message("user", "What is it?"),
             answer = message("assistant", "A truck."), thanks = message("user", "Thank you.");
  std::vector<SampleConversation> out;
  const auto add = [&](std::initializer_list<Json> messages, const Json& tools) {
    out.push_back({Json(Json::array_t(messages)), tools});
  };
  add({user, answer}, nullptr);
  add({system, user, answer}, nullptr);
  add({user, answer, thanks, answer, user, answer}, nullptr);
  add({system, user, answer, thanks, answer, user, answer}, nullptr);
  add({user, answer, thanks, answer, user}, nullptr);
  add({user, with_reasoning(answer), thanks, with_reasoning(answer)}, nullptr);
  for (const Json& content : {Json(nullptr), Json("I look it up.")}) {
    const Json call = call_message(content);
    add({user, call, call_result(), answer, thanks, answer}, tools());
    add({user, call, call_result(), call, call_result(), answer}, tools());
    add({user, with_reasoning(call), call_result(), with_reasoning(answer)}, tools());
  }
  return out;
}

}  // namespace

const std::vector<SampleConversation>& sample_conversations() {
  static const std::vector<SampleConversation> kSamples = make_samples();
  return kSamples;
}

}  // namespace lorry::chat
