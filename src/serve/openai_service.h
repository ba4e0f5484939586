// The OpenAI API over an HTTP server: routes, keys, and the answers as they are generated.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "generate/scheduler.h"
#include "serve/http_server.h"
#include "serve/served_models.h"

namespace lorry::serve {

struct Endpoint;

/// Answers 503 until `set_ready`. `handle` may be called from several threads at once.
class OpenAiService {
 public:
  explicit OpenAiService(std::string api_key) : api_key_(std::move(api_key)) {}

  /// Both must outlive the server that calls `handle`.
  void set_ready(const ServedModels* models, generate::Scheduler* scheduler);
  void handle(const HttpRequest& request, const std::shared_ptr<HttpExchange>& exchange) const;

  /// The body of an error that HTTP itself raises.
  static std::string http_error_body(int status, std::string_view message);

 private:
  bool authorized(const HttpRequest& request) const;
  void health(HttpExchange& exchange) const;
  std::string metrics() const;
  void models(const HttpRequest& request, HttpExchange& exchange) const;
  void take_body(const Endpoint& endpoint, const HttpRequest& request,
                 const std::shared_ptr<HttpExchange>& exchange) const;

  std::string api_key_;
  std::atomic<const ServedModels*> models_{nullptr};
  std::atomic<generate::Scheduler*> scheduler_{nullptr};
};

}  // namespace lorry::serve
