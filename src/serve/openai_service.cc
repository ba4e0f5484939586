#include "serve/openai_service.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <vector>

#include "base/log.h"
#include "base/version.h"
#include "serve/answer.h"
#include "serve/endpoints.h"
#include "serve/metrics.h"
#include "serve/openai_api.h"
#include "serve/openai_response.h"
#include "serve/prepare.h"
#include "serve/request_fields.h"
#include "serve/respond.h"
#include "serve/tokenize_api.h"
#include "serve/web_page.h"

namespace lorry::serve {
namespace {

int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string fresh_id(bool chat) {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{}-{:016x}{:08x}", chat ? "chatcmpl" : "cmpl", random(),
                     static_cast<uint32_t>(random()));
}

/// Adds `n` sequences for each prompt; an error if one of them cannot be.
std::optional<ApiError> add_prompt(Answer& answer, const ServedModel& model,
                                   const GenerationOptions& options,
                                   const std::vector<int32_t>& prompt, const Echo& echo, bool chat,
                                   int64_t& choice) {
  for (int64_t i = 0; i < options.n; ++i) {
    auto sequence = make_sequence(model, options, prompt, choice++, chat);
    if (auto* error = std::get_if<ApiError>(&sequence)) return *error;
    answer.add(std::move(std::get<generate::SequenceRequest>(sequence)), echo);
  }
  answer.add_prompt_tokens(static_cast<int64_t>(prompt.size()));
  return std::nullopt;
}

AnswerHead make_head(const Json& body, const ServedModel& model, const GenerationOptions& options,
                     bool chat) {
  const std::string asked = std::get<std::string>(requested_model(body));
  AnswerHead head{fresh_id(chat), asked.empty() ? model.name : asked, unix_seconds(), chat};
  head.include_usage = options.stream && options.include_usage;
  head.continuous_usage = options.continuous_usage;
  return head;
}

/// Once: the answers are right but for their form.
void warn_of_unknown_calls(const ServedModel& model) {
  static std::atomic<bool> said{false};
  if (said.exchange(true)) return;
  log::warn("the chat template of {} does not write tool calls as JSON: in answers they stay text",
            model.name);
}

std::optional<ApiError> start_chat(const Json& body, const ServedModel& model,
                                   generate::Scheduler& scheduler,
                                   const std::shared_ptr<HttpExchange>& exchange) {
  auto parsed = parse_chat_request(body, model.defaults);
  if (auto* error = std::get_if<ApiError>(&parsed)) return *error;
  const auto& request = std::get<ChatRequest>(parsed);
  if (!request.callable.empty() && !model.call_form) warn_of_unknown_calls(model);
  auto prompt = chat_prompt(model, request);
  if (auto* error = std::get_if<ApiError>(&prompt)) return *error;
  auto answer =
      std::make_shared<Answer>(exchange, model, make_head(body, model, request, true), request);
  int64_t choice = 0;
  if (auto error = add_prompt(*answer, model, request, std::get<0>(prompt), {}, true, choice))
    return error;
  answer->start(scheduler);
  return std::nullopt;
}

std::optional<ApiError> start_completion(const Json& body, const ServedModel& model,
                                         generate::Scheduler& scheduler,
                                         const std::shared_ptr<HttpExchange>& exchange) {
  auto parsed = parse_completion_request(body, model.defaults);
  if (auto* error = std::get_if<ApiError>(&parsed)) return *error;
  const auto& request = std::get<CompletionRequest>(parsed);
  auto answer =
      std::make_shared<Answer>(exchange, model, make_head(body, model, request, false), request);
  int64_t choice = 0;
  for (const auto& one : request.prompts) {
    auto prompt = completion_prompt(model, request, one);
    if (auto* error = std::get_if<ApiError>(&prompt)) return *error;
    const auto& ids = std::get<0>(prompt);
    const Echo echo = make_echo(model, request, one, ids);
    if (auto error = add_prompt(*answer, model, request, ids, echo, false, choice)) return error;
  }
  answer->start(scheduler);
  return std::nullopt;
}

ApiError unknown_model(const std::string& asked, const ServedModels& models) {
  return {404,
          fmt::format("The model '{}' does not exist; this server has: {}", asked,
                      fmt::join(models.names(), ", ")),
          "invalid_request_error", "model", "model_not_found"};
}

Json model_json(const std::string& name, const ServedModel& model, int64_t created) {
  Json out;
  out["id"] = name;
  out["object"] = "model";
  out["created"] = created;
  out["owned_by"] = "lorry";
  out["root"] = model.name;
  out["parent"] = model.parent.empty() ? Json() : Json(model.parent);
  out["max_model_len"] = model.max_model_len;
  return out;
}

/// Takes the same time for every key that is wrong.
bool same_secret(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < b.size(); ++i)
    difference |=
        static_cast<unsigned char>(b[i]) ^ static_cast<unsigned char>(i < a.size() ? a[i] : 0);
  return difference == 0;
}

/// Each name once, and only so many: they are the clients'.
void report_unknown_fields(const Json& body, Route route) {
  constexpr size_t kMost = 64, kLongest = 64;
  static std::mutex mutex;
  static std::set<std::string> reported;
  for (const std::string& name : unknown_fields(body, route)) {
    if (name.size() > kLongest) continue;
    std::lock_guard lock(mutex);
    if (reported.size() >= kMost || !reported.insert(name).second) continue;
    log::warn("requests have the field {}, which this server does not know: it is ignored",
              dump_json(Json(name)));
  }
}

void respond_either(HttpExchange& exchange, std::variant<std::string, ApiError> answer) {
  if (const auto* error = std::get_if<ApiError>(&answer)) return respond_error(exchange, *error);
  respond_json(exchange, std::get<std::string>(std::move(answer)));
}

void respond_wrong_method(HttpExchange& exchange, const HttpRequest& request,
                          const std::string& allowed) {
  const ApiError error{
      405, fmt::format("{} is not allowed on {}; use {}", request.method, request.path, allowed)};
  exchange.respond({405, "application/json", error_body(error), {{"Allow", allowed}}});
}

}  // namespace

void OpenAiService::set_ready(const ServedModels* models, generate::Scheduler* scheduler) {
  scheduler_ = scheduler;
  models_ = models;
}

std::string OpenAiService::http_error_body(int status, std::string_view message) {
  return error_body({status,
                     std::string(message),
                     status >= 500 ? "server_error" : "invalid_request_error",
                     {},
                     {}});
}

bool OpenAiService::authorized(const HttpRequest& request) const {
  if (api_key_.empty()) return true;
  std::string_view given = request.authorization;
  constexpr std::string_view kScheme = "bearer ";
  const auto same = [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; };
  if (given.size() < kScheme.size() ||
      !std::equal(kScheme.begin(), kScheme.end(), given.begin(),
                  [&](char expected, char c) { return same(c, expected); })) {
    return false;
  }
  given.remove_prefix(kScheme.size());
  return same_secret(given, api_key_);
}

void OpenAiService::handle(const HttpRequest& request,
                           const std::shared_ptr<HttpExchange>& exchange) const {
  const Endpoint* endpoint = find_endpoint(request.path);
  if (endpoint == nullptr) return respond_error(*exchange, no_such_path(request.path));
  if (endpoint->needs_key && !authorized(request))
    return respond_error(*exchange, {401,
                                     request.authorization.empty()
                                         ? "this server asks for an API key: send the header "
                                           "'Authorization: Bearer KEY'"
                                         : "the API key is not the one of this server",
                                     "invalid_request_error",
                                     {},
                                     "invalid_api_key"});
  if (!takes_method(*endpoint, request.method))
    return respond_wrong_method(*exchange, request, endpoint->methods);
  if (endpoint->needs_model && models_ == nullptr)
    return respond_error(*exchange, server_error(503, "the model is loading; try again soon"));
  switch (endpoint->does) {
    case Does::kPage:
      return exchange->respond({200, "text/html; charset=utf-8", kWebPage, {}});
    case Does::kHealth:
      return health(*exchange);
    case Does::kVersion:
      return respond_json(*exchange, fmt::format(R"({{"version":"{}"}})", kVersion));
    case Does::kMetrics:
      return exchange->respond({200, std::string(kMetricsContentType), metrics(), {}});
    case Does::kModels:
      return models(request, *exchange);
    default:
      return take_body(*endpoint, request, exchange);
  }
}

void OpenAiService::health(HttpExchange& exchange) const {
  if (models_ == nullptr)
    return exchange.respond(
        {503, "application/json", R"({"status":"loading"})", {{"Retry-After", "1"}}});
  const std::string failure = scheduler_.load()->failure();
  if (failure.empty()) return respond_json(exchange, R"({"status":"ok"})");
  exchange.respond(
      {503, "application/json", dump_json(Json{{"status", "failed"}, {"error", failure}}), {}});
}

std::string OpenAiService::metrics() const {
  std::vector<QueueGauges> gauges;
  std::vector<NamedMetrics> named;
  size_t queues = 0;
  for (const ServedModel& model : models_.load()->all()) {
    named.push_back({model.name, model.metrics.get()});
    if (model.queue < queues) continue;  // the weights of one before it
    ++queues;
    const auto state = scheduler_.load()->state(model.queue);
    gauges.push_back({model.name, state.running, state.waiting, state.cache_used,
                      state.prefix_queries, state.prefix_hits, state.draft_tokens,
                      state.accepted_tokens});
  }
  return prometheus_text(gauges, named);
}

void OpenAiService::models(const HttpRequest& request, HttpExchange& exchange) const {
  static const int64_t created = unix_seconds();
  const ServedModels& models = *models_;
  static constexpr std::string_view kOne = "/v1/models/";
  if (request.path.size() > kOne.size()) {
    const std::string name = request.path.substr(kOne.size());
    const ServedModel* model = models.find(name);
    if (!model) return respond_error(exchange, unknown_model(name, models));
    return respond_json(exchange, dump_json(model_json(name, *model, created)));
  }
  Json list = Json::array();
  for (const std::string& name : models.names())
    list.push_back(model_json(name, *models.find(name), created));
  Json body;
  body["object"] = "list";
  body["data"] = std::move(list);
  respond_json(exchange, dump_json(body));
}

void OpenAiService::take_body(const Endpoint& endpoint, const HttpRequest& request,
                              const std::shared_ptr<HttpExchange>& exchange) const {
  auto parsed = parse_body(request.body);
  if (auto* error = std::get_if<ApiError>(&parsed)) return respond_error(*exchange, *error);
  const Json& body = std::get<Json>(parsed);
  const auto name = requested_model(body);
  if (auto* error = std::get_if<ApiError>(&name)) return respond_error(*exchange, *error);
  const ServedModel* model = models_.load()->find(std::get<std::string>(name));
  if (!model) return respond_error(*exchange, unknown_model(std::get<std::string>(name), *models_));
  std::optional<ApiError> error;
  switch (endpoint.does) {
    case Does::kTokenize:
      return respond_either(*exchange, tokenize(body, *model));
    case Does::kDetokenize:
      return respond_either(*exchange, detokenize(body, *model));
    case Does::kChat:
      report_unknown_fields(body, Route::kChat);
      error = start_chat(body, *model, *scheduler_, exchange);
      break;
    default:
      report_unknown_fields(body, Route::kCompletions);
      error = start_completion(body, *model, *scheduler_, exchange);
  }
  if (error) respond_error(*exchange, *error);
}

}  // namespace lorry::serve
