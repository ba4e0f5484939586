// Whose turn a role's name means.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorry::data {

enum class Role { kSystem, kUser, kAssistant, kTool, kCall };

/// {name of the data, role}: what --roles says, before the names that are known.
using RoleNames = std::vector<std::pair<std::string, std::string>>;

/// The role that a name means, in any case, spaces around it aside; nullopt for unknown names.
/// kCall is function_call and its like, whose content becomes a call.
std::optional<Role> find_role(std::string_view name, const RoleNames& more);

/// system, user, assistant or tool; a call is the assistant's.
const char* role_name(Role role);

}  // namespace lorry::data
