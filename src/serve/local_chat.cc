// The same models and scheduler as the server's, asked from within the process.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/cancel.h"
#include "generate/answer_text.h"
#include "generate/scheduler.h"
#include "serve/openai_api.h"
#include "serve/prepare.h"
#include "serve/serve.h"
#include "serve/served_models.h"

namespace lorry::serve {
namespace {

/// Events on their way from the scheduler's thread to the caller's.
class EventQueue {
 public:
  void push(generate::TokenEvent event) {
    {
      std::lock_guard lock(mutex_);
      events_.push_back(std::move(event));
    }
    wake_.notify_one();
  }
  /// nullopt after a tenth of a second without one.
  std::optional<generate::TokenEvent> pop() {
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, std::chrono::milliseconds(100), [this] { return !events_.empty(); });
    if (events_.empty()) return std::nullopt;
    generate::TokenEvent event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<generate::TokenEvent> events_;
};

class SchedulerChat final : public LocalChat {
 public:
  explicit SchedulerChat(generate::SchedulerOptions options) : scheduler_(options) {}

  Result<> open(const ServeOptions& options) {
    LORRY_ASSIGN(models_, ServedModels::load(options, scheduler_));
    scheduler_.start();
    return {};
  }

  Result<std::string> complete(const std::string& model_name, const Json& messages,
                               const Json& sampling,
                               const std::function<bool(std::string_view)>& on_text) override {
    const ServedModel* model = models_->find(model_name);
    if (!model)
      return not_found(fmt::format("there is no model '{}'; loaded: {}", model_name,
                                   fmt::join(models_->names(), ", ")));
    Json body = sampling.is_object() ? sampling : Json::object();
    body["messages"] = messages;
    auto parsed = parse_chat_request(body, model->defaults);
    if (auto* error = std::get_if<ApiError>(&parsed)) return invalid_input(error->message);
    const auto& request = std::get<ChatRequest>(parsed);
    auto prompt = chat_prompt(*model, request);
    if (auto* error = std::get_if<ApiError>(&prompt)) return invalid_input(error->message);
    auto sequence = make_sequence(*model, request, std::move(std::get<0>(prompt)), 0, true);
    if (auto* error = std::get_if<ApiError>(&sequence)) return invalid_input(error->message);
    return run(*model, request, std::move(std::get<0>(sequence)), on_text);
  }

  std::vector<std::string> model_names() const override { return models_->names(); }

 private:
  Result<std::string> run(const ServedModel& model, const ChatRequest& request,
                          generate::SequenceRequest sequence,
                          const std::function<bool(std::string_view)>& on_text) {
    const auto queue = std::make_shared<EventQueue>();
    LORRY_ASSIGN(
        const generate::Scheduler::Ticket ticket,
        scheduler_.submit(model.queue, std::move(sequence),
                          [queue](generate::TokenEvent event) { queue->push(std::move(event)); }));
    generate::AnswerText text(model.chat->tokenizer(), request.skip_special_tokens, request.stop);
    std::string answer;
    while (text.finish() == generate::FinishReason::kNone) {
      if (cancel_requested()) *ticket = true;
      const auto event = queue->pop();
      if (!event) continue;
      if (event->finish == generate::FinishReason::kError) return unavailable(event->error);
      const std::string piece = text.push(*event);
      answer += piece;
      if (!piece.empty() && on_text && !on_text(piece)) break;
    }
    *ticket = true;
    return answer;
  }

  std::unique_ptr<ServedModels> models_;
  generate::Scheduler scheduler_;  // ends before the models that it steps
};

}  // namespace

Result<std::unique_ptr<LocalChat>> open_local_chat(const ServeOptions& options) {
  auto chat = std::make_unique<SchedulerChat>(scheduler_options(options));
  LORRY_TRY(chat->open(options));
  return std::unique_ptr<LocalChat>(std::move(chat));
}

}  // namespace lorry::serve
