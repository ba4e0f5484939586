// Ids of tool calls for templates that ask for nine letters and digits, as Mistral's do.
#pragma once

#include "base/json.h"

namespace lorry::chat {

/// Gives calls without such an id one, and their results the same: made of the id that they had,
/// else of their place and content, so that a conversation has the same ids however far it has got.
/// Results without an id belong to the calls before them, in order. True if something changed.
bool fit_call_ids(Json& messages);

}  // namespace lorry::chat
