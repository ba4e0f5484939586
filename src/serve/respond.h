// Answers that are one JSON object.
#pragma once

#include <string>

#include "serve/http_server.h"
#include "serve/openai_api.h"

namespace lorry::serve {

void respond_json(HttpExchange& exchange, std::string body);
/// With the headers that go with its status.
void respond_error(HttpExchange& exchange, const ApiError& error);

}  // namespace lorry::serve
