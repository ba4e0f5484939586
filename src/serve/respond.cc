#include "serve/respond.h"

#include <utility>

namespace lorry::serve {

void respond_json(HttpExchange& exchange, std::string body) {
  exchange.respond({200, "application/json", std::move(body), {}});
}

void respond_error(HttpExchange& exchange, const ApiError& error) {
  HttpResponse response{error.status, "application/json", error_body(error), {}};
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (error.status == 503 || error.status == 429) response.headers.emplace_back("Retry-After", "1");
  exchange.respond(std::move(response));
}

}  // namespace lorry::serve
