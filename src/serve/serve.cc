#include "serve/serve.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <future>
#include <thread>

#include "base/cancel.h"
#include "base/log.h"
#include "generate/scheduler.h"
#include "serve/http_server.h"
#include "serve/openai_service.h"
#include "serve/served_models.h"

namespace lorry::serve {
namespace {

constexpr std::chrono::seconds kGrace{5};  // for running requests, once a stop is asked for

/// The models on their way. Shared with the thread that loads them, which is left behind if a stop
/// is asked for meanwhile: a read of a slow server cannot be ended, but the program can.
struct Loading {
  explicit Loading(const ServeOptions& serve_options)
      : options(serve_options), scheduler(scheduler_options(serve_options)) {}
  const ServeOptions options;
  generate::Scheduler scheduler;
  std::promise<Result<std::unique_ptr<ServedModels>>> models;
};

Result<std::unique_ptr<ServedModels>> load(const std::shared_ptr<Loading>& loading) {
  auto models = loading->models.get_future();
  std::thread thread([loading] {
    loading->models.set_value(ServedModels::load(loading->options, loading->scheduler));
  });
  while (models.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready) {
    if (!cancel_requested()) continue;
    thread.detach();
    return cancelled("stopped by a signal before the model was loaded");
  }
  thread.join();
  return models.get();
}

}  // namespace

Result<> serve(const ServeOptions& options) {
  if (options.max_num_seqs < 1) return usage_error("--max-num-seqs must be at least 1");
  const auto begin = std::chrono::steady_clock::now();
  OpenAiService service(options.api_key);
  const auto loading = std::make_shared<Loading>(options);
  generate::Scheduler& scheduler = loading->scheduler;
  std::unique_ptr<ServedModels> models;

  // The port first: who waits for the server sees 503 while the model loads, and a port that is
  // taken is known before the time is spent.
  HttpOptions http;
  http.host = options.host;
  http.port = options.port;
  http.max_connections = static_cast<int>(options.max_connections);
  http.allowed_origins = options.allowed_origins;
  std::erase(http.allowed_origins, "none");
  LORRY_ASSIGN(const auto server, HttpServer::start(
                                      http,
                                      [&](const auto& request, const auto& exchange) {
                                        service.handle(request, exchange);
                                      },
                                      OpenAiService::http_error_body));
  LORRY_ASSIGN(models, load(loading));
  scheduler.start();
  service.set_ready(models.get(), &scheduler);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  log::info("serving {} at http://{}/v1 (ready after {:.1f} s)", fmt::join(models->names(), ", "),
            server->address(), seconds);
  for (const ServedModel& model : models->all()) {
    if (!model.adapter) log::info("{}: {}", model.name, model.memory);
  }

  while (!cancel_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  log::info("stopping; running requests have {} s to end", kGrace.count());
  server->stop(kGrace);
  scheduler.stop();
  return {};
}

}  // namespace lorry::serve
