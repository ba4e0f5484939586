// Conversations that are not lists of {role, content}.
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "data/roles.h"

namespace lorry::data {

/// What a column holds as a list of turns: a list, a string of JSON or of Python's repr, or turns
/// as columns. Null stays null. Fails with invalid input, saying what it is, for anything else.
Result<Json> list_of_turns(const Json& given);

/// Turns in other shapes as objects with `role` and `content`: strings (user and assistant by
/// turns), [role, text] pairs, and objects whose keys are the roles ({"user", "assistant"},
/// {"system", "input", "output"}); the results of tools among the parts of a user's turn
/// (Anthropic) as turns of their own. Other lists are left as they are.
Result<Json> usual_turns(Json turns, const RoleNames& roles);

/// Whether `key` is one of a turn whose keys are the roles.
bool is_role_key(const std::string& key, const RoleNames& roles);

}  // namespace lorry::data
