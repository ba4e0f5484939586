// Small conversations of every usual kind, by which a template is got to know when it is loaded.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "base/json.h"

namespace lorry::chat {

struct SampleConversation {
  Json messages;
  Json tools;  ///< array or null
};

const std::vector<SampleConversation>& sample_conversations();

}  // namespace lorry::chat
