#include "data/roles.h"

#include <algorithm>
#include <cctype>
#include <map>

namespace lorry::data {
namespace {

std::optional<Role> known_role(const std::string& name) {
  static const std::map<std::string, Role> kRoles = {{"system", Role::kSystem},
                                                     {"developer", Role::kSystem},
                                                     {"user", Role::kUser},
                                                     {"human", Role::kUser},
                                                     {"prompter", Role::kUser},
                                                     {"assistant", Role::kAssistant},
                                                     {"gpt", Role::kAssistant},
                                                     {"chatgpt", Role::kAssistant},
                                                     {"gpt4", Role::kAssistant},
                                                     {"gpt-4", Role::kAssistant},
                                                     {"claude", Role::kAssistant},
                                                     {"model", Role::kAssistant},
                                                     {"bing", Role::kAssistant},
                                                     {"bard", Role::kAssistant},
                                                     {"bot", Role::kAssistant},
                                                     {"chatbot", Role::kAssistant},
                                                     {"ai", Role::kAssistant},
                                                     {"tool", Role::kTool},
                                                     {"function", Role::kTool},
                                                     {"observation", Role::kTool},
                                                     {"function_response", Role::kTool},
                                                     {"function-response", Role::kTool},
                                                     {"tool_response", Role::kTool},
                                                     {"tool_result", Role::kTool},
                                                     {"ipython", Role::kTool},
                                                     {"function_call", Role::kCall},
                                                     {"function-call", Role::kCall},
                                                     {"tool_call", Role::kCall},
                                                     {"tool_calls", Role::kCall}};
  const auto found = kRoles.find(name);
  if (found == kRoles.end()) return std::nullopt;
  return found->second;
}

std::string simplified(std::string_view name) {
  const auto is_space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
  while (!name.empty() && is_space(name.front())) name.remove_prefix(1);
  while (!name.empty() && is_space(name.back())) name.remove_suffix(1);
  std::string simple(name);
  for (char& c : simple) c = char(std::tolower(static_cast<unsigned char>(c)));
  return simple;
}

}  // namespace

std::optional<Role> find_role(std::string_view name, const RoleNames& more) {
  const std::string simple = simplified(name);
  for (const auto& [given, role] : more) {
    if (simplified(given) == simple) return known_role(simplified(role));
  }
  return known_role(simple);
}

const char* role_name(Role role) {
  switch (role) {
    case Role::kSystem:
      return "system";
    case Role::kUser:
      return "user";
    case Role::kTool:
      return "tool";
    case Role::kAssistant:
    case Role::kCall:
      break;
  }
  return "assistant";
}

}  // namespace lorry::data
