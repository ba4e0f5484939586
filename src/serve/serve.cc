#include "serve/serve.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <thread>

#include "base/cancel.h"
#include "base/log.h"
#include "serve/http_server.h"
#include "serve/openai_service.h"
#include "serve/scheduler.h"
#include "serve/served_models.h"

namespace lorry::serve {
namespace {

constexpr std::chrono::seconds kGrace{5};  // for running requests, once a stop is asked for

}  // namespace

Result<> serve(const ServeOptions& options) {
  if (options.max_num_seqs < 1) return usage_error("--max-num-seqs must be at least 1");
  const auto begin = std::chrono::steady_clock::now();
  OpenAiService service(options.api_key);
  SchedulerOptions scheduler_options;
  scheduler_options.max_num_seqs = options.max_num_seqs;
  Scheduler scheduler(scheduler_options);
  std::unique_ptr<ServedModels> models;

  // The port first: who waits for the server sees 503 while the model loads, and a port that is
  // taken is known before the time is spent.
  HttpOptions http;
  http.host = options.host;
  http.port = options.port;
  LORRY_ASSIGN(const auto server, HttpServer::start(
                                      http,
                                      [&](const auto& request, const auto& exchange) {
                                        service.handle(request, exchange);
                                      },
                                      OpenAiService::http_error_body));
  LORRY_ASSIGN(models, ServedModels::load(options, scheduler));
  scheduler.start();
  service.set_ready(models.get(), &scheduler);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  log::info("serving {} at http://{}/v1 (ready after {:.1f} s)", fmt::join(models->names(), ", "),
            server->address(), seconds);

  while (!cancel_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  log::info("stopping; running requests have {} s to end", kGrace.count());
  server->stop(kGrace);
  scheduler.stop();
  return {};
}

}  // namespace lorry::serve
