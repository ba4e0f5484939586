#include "serve/endpoints.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <vector>

namespace lorry::serve {
namespace {

// As in vLLM, what monitors a server needs no key.
constexpr Endpoint kEndpoints[] = {
    {"/v1/models", "GET", Does::kModels},
    {"/v1/chat/completions", "POST", Does::kChat},
    {"/v1/completions", "POST", Does::kCompletions},
    {"/tokenize", "POST", Does::kTokenize},
    {"/detokenize", "POST", Does::kDetokenize},
    {"/health", "GET", Does::kHealth, false, false},
    {"/ping", "GET, POST", Does::kHealth, false, false},
    {"/version", "GET", Does::kVersion, false, false},
    {"/metrics", "GET", Does::kMetrics, false},
    {"/", "GET", Does::kPage, false, false},
};

}  // namespace

const Endpoint* find_endpoint(std::string_view path) {
  if (path.starts_with("/v1/models/")) path = "/v1/models";
  const auto* found = std::find_if(std::begin(kEndpoints), std::end(kEndpoints),
                                   [&](const Endpoint& endpoint) { return endpoint.path == path; });
  return found == std::end(kEndpoints) ? nullptr : found;
}

bool takes_method(const Endpoint& endpoint, std::string_view method) {
  const auto listed = fmt::format(", {},", endpoint.methods);
  return listed.find(fmt::format(", {},", method == "HEAD" ? "GET" : method)) != std::string::npos;
}

ApiError no_such_path(std::string_view path) {
  std::vector<std::string_view> paths;
  for (const Endpoint& endpoint : kEndpoints) paths.push_back(endpoint.path);
  return not_found_error(
      fmt::format("there is no {}; this server has {}", path, fmt::join(paths, ", ")));
}

}  // namespace lorry::serve
