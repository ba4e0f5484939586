#include "serve/answer.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "chat/call_reader.h"
#include "generate/answer_text.h"
#include "serve/respond.h"

namespace lorry::serve {
namespace {

/// Nine letters and digits: the one form of an id that every template takes back (Mistral's raise
/// for others).
std::string fresh_call_id() {
  static constexpr std::string_view kSigns =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  thread_local std::mt19937_64 random{std::random_device{}()};
  std::uniform_int_distribution<size_t> sign(0, kSigns.size() - 1);
  std::string out;
  for (int i = 0; i < 9; ++i) out += kSigns[sign(random)];
  return out;
}

}  // namespace

/// One sequence of the answer.
struct Answer::Part {
  Part(generate::SequenceRequest sequence, const Echo& prompt, const ServedModel& model,
       const GenerationOptions& options, bool chat)
      : request(std::move(sequence)),
        echo(prompt.text),
        text(model.chat->tokenizer(), options.skip_special_tokens, options.stop),
        logprobs(model.chat->tokenizer(), options.skip_special_tokens, chat) {
    if (chat) {
      start_calls(model, options);
      return;
    }
    text.continue_after(request.prompt);
    if (options.score_prompt) {
      logprobs.begin_with_prompt(request.prompt[0], prompt.offsets, count_characters(echo));
    } else if (options.top_logprobs >= 0) {
      logprobs.continue_after(request.prompt);
    }
  }
  void start_calls(const ServedModel& model, const GenerationOptions& options) {
    if (options.callable.empty() || !model.call_form) return;
    calls.emplace(chat::without_special_tokens(*model.call_form, *model.chat->tokenizer(),
                                               options.skip_special_tokens),
                  options.callable);
  }
  /// The content that became certain; calls go to `made`.
  std::string read_calls(std::string text_now, bool ended) {
    if (!calls) return text_now;
    auto piece = calls->push(text_now);
    if (ended) piece.content += calls->finish().content;
    for (chat::ToolCall& call : piece.calls) made.push_back({fresh_call_id(), std::move(call)});
    return std::move(piece.content);
  }
  std::string_view finish_reason() const {
    const auto finish = text.finish();
    return finish_reason_name(
        finish == generate::FinishReason::kNone ? generate::FinishReason::kLength : finish,
        !made.empty());
  }

  generate::SequenceRequest request;
  std::string echo;  // not yet sent, in a stream
  generate::AnswerText text;
  LogprobWriter logprobs;
  std::optional<chat::CallReader> calls;  // if the request has tools
  std::vector<IdentifiedCall> made;
  size_t sent = 0;     // of them, in a stream
  std::string so_far;  // of a whole answer
  generate::Scheduler::Ticket ticket;
  bool finished = false;
};

Answer::Answer(std::shared_ptr<HttpExchange> exchange, const ServedModel& model, AnswerHead head,
               const GenerationOptions& options)
    : exchange_(std::move(exchange)),
      model_(model),
      head_(std::move(head)),
      stream_(options.stream),
      options_(options) {}
Answer::~Answer() = default;

void Answer::add(generate::SequenceRequest sequence, const Echo& echo) {
  parts_.push_back(std::make_unique<Part>(std::move(sequence), echo, model_, options_, head_.chat));
}

void Answer::start(generate::Scheduler& scheduler) {
  exchange_->on_close([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->cancel();
  });
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (!submit(scheduler, i)) return;
  }
  if (stream_) {
    exchange_->start_stream("text/event-stream");
    for (size_t i = 0; i < parts_.size(); ++i) start_stream_of(i);
  }
  if (open_ == 0) complete();
}

bool Answer::submit(generate::Scheduler& scheduler, size_t i) {
  Part& part = *parts_[i];
  if (part.request.max_tokens == 0 && !part.request.score_prompt) {  // an echo alone
    part.finished = true;
    return true;
  }
  ++open_;
  auto ticket = scheduler.submit(
      model_.queue, std::move(part.request),
      [self = shared_from_this(), i](generate::TokenEvent event) {
        self->exchange_->post([self, i, event = std::move(event)] { self->take(i, event); });
      });
  if (ticket.ok()) {
    part.ticket = *ticket;
    return true;
  }
  cancel();
  const Error& error = ticket.error();
  respond_error(*exchange_, error.kind == ErrorKind::kUnavailable ? server_error(503, error.message)
                                                                  : ApiError{400, error.message});
  done_ = true;
  return false;
}

void Answer::start_stream_of(size_t i) {
  Part& part = *parts_[i];
  if (head_.chat) exchange_->write(role_chunk(head_, i));
  if (!options_.score_prompt) write_echo(i);
  if (part.finished) exchange_->write(finish_chunk(head_, i, part.finish_reason()));
}

void Answer::write_echo(size_t i) {
  Part& part = *parts_[i];
  if (part.echo.empty()) return;
  exchange_->write(text_chunk(head_, i, std::exchange(part.echo, {}), part.logprobs.take()));
}

void Answer::take(size_t i, const generate::TokenEvent& event) {
  Part& part = *parts_[i];
  if (done_ || part.finished) return;
  if (event.finish == generate::FinishReason::kError) return fail(server_error(500, event.error));
  if (event.finish == generate::FinishReason::kCancelled)
    return fail(server_error(503, "the server is stopping"));
  for (const generate::TokenScore& score : event.prompt) part.logprobs.add(score);
  const bool more_of_the_prompt = event.id < 0 && event.finish == generate::FinishReason::kNone;
  if (more_of_the_prompt) return;
  if (stream_) write_echo(i);
  std::string text = part.text.push(event);
  const bool ended = part.text.finish() != generate::FinishReason::kNone;
  text = part.read_calls(std::move(text), ended);
  if (event.id >= 0) {
    // Who scores a text counts on one entry for each token; a chat's are those of its content.
    const bool shown = !event.is_stop || !head_.chat;
    if (options_.top_logprobs >= 0 && shown) part.logprobs.add(event);
    ++usage_.completion_tokens;
  }
  if (stream_) {
    const Json logprobs = part.logprobs.take();
    if (!text.empty() || !logprobs.is_null())
      exchange_->write(text_chunk(head_, i, text, logprobs));
    for (; part.sent < part.made.size(); ++part.sent)
      exchange_->write(call_chunk(head_, i, part.sent, part.made[part.sent]));
  } else {
    part.so_far += text;
  }
  if (!ended) return;
  part.finished = true;
  *part.ticket = true;  // a stop string: the scheduler does not know yet
  if (stream_) exchange_->write(finish_chunk(head_, i, part.finish_reason()));
  if (--open_ == 0) complete();
}

void Answer::complete() {
  done_ = true;
  if (stream_) {
    if (head_.include_usage) exchange_->write(usage_chunk(head_, usage_));
    exchange_->write(kSseDone);
    exchange_->end();
    return;
  }
  std::vector<Choice> choices;
  for (auto& part : parts_) {
    std::string reason(part->finish_reason());
    choices.push_back({part->echo + part->so_far, std::move(part->made), std::move(reason),
                       part->logprobs.take()});
  }
  respond_json(*exchange_, whole_answer(head_, choices, usage_));
}

void Answer::fail(const ApiError& error) {
  done_ = true;
  cancel();
  if (stream_) {
    exchange_->write(sse(error_body(error)));
    exchange_->end();
  } else {
    respond_error(*exchange_, error);
  }
}

void Answer::cancel() {
  for (auto& part : parts_) {
    if (part->ticket) *part->ticket = true;
  }
}

}  // namespace lorry::serve
