// What the system says as a part of the next user message, for templates without a system role.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "base/json.h"

namespace lorry::chat {

bool has_system(const Json& messages);

struct SystemAsUser {
  Json messages;
  std::vector<size_t> kept;  ///< of each message its place in the conversation as it was

  /// Places in the conversation as it was, as those in `messages`; those that are gone are left
  /// out.
  std::vector<size_t> places(std::span<const size_t> before) const;
};

/// The text of each system (or developer) message, and an empty line, goes before the text of the
/// next user message, as Gemma's own template writes it. Where none follows before the assistant
/// answers, it becomes a user message. Messages that are no objects stay as they are.
SystemAsUser system_as_user(const Json& messages);

}  // namespace lorry::chat
