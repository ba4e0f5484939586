#include "chat/system_messages.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace lorry::chat {
namespace {

constexpr char kBetween[] = "\n\n";

bool has_role(const Json& message, std::string_view role) {
  if (!message.is_object()) return false;
  const auto found = message.find("role");
  return found != message.end() && found->is_string() &&
         found->get_ref<const std::string&>() == role;
}

bool is_system(const Json& message) {
  return has_role(message, "system") || has_role(message, "developer");
}

std::string text_of(const Json& message) {
  const auto content = message.find("content");
  if (content == message.end()) return {};
  if (content->is_string()) return content->get<std::string>();
  std::string text;
  if (!content->is_array()) return text;
  for (const Json& part : *content) {
    if (part.is_string()) text += part.get<std::string>();
    if (part.is_object()) text += part.value("text", "");
  }
  return text;
}

void put_before(Json& message, const std::string& text) {
  Json& content = message["content"];
  if (content.is_array()) {
    content.insert(content.begin(), Json{{"type", "text"}, {"text", text + kBetween}});
  } else {
    content = text + kBetween + (content.is_string() ? content.get<std::string>() : "");
  }
}

}  // namespace

bool has_system(const Json& messages) {
  return std::any_of(messages.begin(), messages.end(), is_system);
}

std::vector<size_t> SystemAsUser::places(std::span<const size_t> before) const {
  std::vector<size_t> out;
  for (size_t i = 0; i < kept.size(); ++i) {
    if (std::find(before.begin(), before.end(), kept[i]) != before.end()) out.push_back(i);
  }
  return out;
}

SystemAsUser system_as_user(const Json& messages) {
  SystemAsUser out;
  out.messages = Json::array();
  if (!messages.is_array()) return {messages, {}};
  std::string said;
  size_t from = 0;
  const auto add = [&](Json message, size_t place) {
    out.messages.push_back(std::move(message));
    out.kept.push_back(place);
  };
  const auto say_alone = [&] {
    if (!said.empty()) add({{"role", "user"}, {"content", std::exchange(said, {})}}, from);
  };
  for (size_t i = 0; i < messages.size(); ++i) {
    if (is_system(messages[i])) {
      const std::string text = text_of(messages[i]);
      if (!said.empty() && !text.empty()) said += kBetween;
      said += text;
      from = i;
      continue;
    }
    if (!has_role(messages[i], "user")) say_alone();
    add(messages[i], i);
    if (!said.empty()) put_before(out.messages.back(), std::exchange(said, {}));
  }
  say_alone();
  return out;
}

}  // namespace lorry::chat
