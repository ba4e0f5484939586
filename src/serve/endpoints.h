// The paths of the server, and what each asks for: one table.
#pragma once

#include <string>
#include <string_view>

#include "serve/openai_api.h"

namespace lorry::serve {

/// What a path is for.
enum class Does {
  kPage,
  kHealth,
  kVersion,
  kMetrics,
  kModels,
  kChat,
  kCompletions,
  kTokenize,
  kDetokenize
};

struct Endpoint {
  std::string_view path;
  const char* methods;  ///< as the header Allow lists them; HEAD goes with GET
  Does does;
  bool needs_key = true, needs_model = true;
};

/// nullptr if there is none.
const Endpoint* find_endpoint(std::string_view path);
bool takes_method(const Endpoint& endpoint, std::string_view method);
/// 404, with the paths that there are.
ApiError no_such_path(std::string_view path);

}  // namespace lorry::serve
