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

/// Why the scheduler does not take a sequence.
ApiError refusal(const Error& error) {
  if (error.kind == ErrorKind::kUnavailable)
    return {429, error.message, "rate_limit_error", {}, "rate_limit_exceeded"};
  if (error.kind == ErrorKind::kCancelled) return server_error(503, error.message);
  return {400, error.message};
}

}  // namespace

/// One sequence of the answer.
struct Answer::Part {
  Part(generate::SequenceRequest sequence, const Echo& prompt, const ServedModel& model,
       const GenerationOptions& options, bool chat)
      : request(std::move(sequence)),
        echo(prompt.text),
        text(model.chat->tokenizer(), options.skip_special_tokens, options.stop,
             options.include_stop),
        logprobs(model.chat->tokenizer(), options.skip_special_tokens, options.tokens_as_ids, chat),
        one_call(options.one_call),
        shows_ids(options.return_token_ids) {
    if (shows_ids) prompt_ids = request.prompt;
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
    for (chat::ToolCall& call : piece.calls) {
      if (made.empty() || !one_call) made.push_back({fresh_call_id(), std::move(call)});
    }
    return std::move(piece.content);
  }
  /// The prompt's ids as a member of a choice or an answer, once; nothing if they are not asked
  /// for.
  std::string take_prompt_ids() {
    if (!shows_ids || prompt_ids.empty()) return {};
    return ids_member("prompt_token_ids", std::exchange(prompt_ids, {}));
  }
  /// The same of the tokens since the last call. In completions the prompt's go with the first.
  std::string take_ids(bool chat) {
    if (!shows_ids) return {};
    std::string out = chat ? std::string() : take_prompt_ids();
    return out + ids_member("token_ids", std::exchange(ids, {}));
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
  bool one_call;                         // calls beyond the first are left out
  bool shows_ids;                        // of tokens
  std::vector<int32_t> prompt_ids, ids;  // not yet sent
  size_t sent = 0;                       // of `made`, in a stream
  std::string so_far;                    // of a whole answer
  generate::Scheduler::Ticket ticket;
  bool began = false;    // an event has come
  bool answers = false;  // a token has come
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
    if (const auto self = weak.lock()) self->cancel(generate::FinishReason::kCancelled);
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
  const auto prompt_tokens = part.request.prompt.size();
  ++open_;
  auto ticket = scheduler.submit(
      model_.queue, std::move(part.request),
      [self = shared_from_this(), i](generate::TokenEvent event) {
        self->exchange_->post([self, i, event = std::move(event)] { self->take(i, event); });
      });
  if (ticket.ok()) {
    part.ticket = *ticket;
    model_.metrics->prompt_tokens += prompt_tokens;
    return true;
  }
  cancel(generate::FinishReason::kError);
  respond_error(*exchange_, refusal(ticket.error()));
  done_ = true;
  return false;
}

void Answer::start_stream_of(size_t i) {
  Part& part = *parts_[i];
  if (head_.chat) exchange_->write(role_chunk(head_, i, part.take_prompt_ids()));
  if (!options_.score_prompt) write_echo(i);
  if (part.finished)
    exchange_->write(finish_chunk(head_, i, part.finish_reason(), part.take_ids(head_.chat)));
}

void Answer::write_echo(size_t i) {
  Part& part = *parts_[i];
  if (part.echo.empty()) return;
  exchange_->write(text_chunk(head_, i, std::exchange(part.echo, {}), part.logprobs.take(),
                              part.take_ids(head_.chat)));
}

void Answer::take(size_t i, const generate::TokenEvent& event) {
  Part& part = *parts_[i];
  if (done_ || part.finished) return;
  if (event.finish == generate::FinishReason::kError) return fail(server_error(500, event.error));
  if (event.finish == generate::FinishReason::kCancelled)
    return fail(server_error(503, "the server is stopping"));
  // The first choice speaks for its prompt: the others find what that one computed.
  if (!std::exchange(part.began, true) && i % static_cast<size_t>(options_.n) == 0)
    head_.usage.cached_tokens += event.cached_tokens;
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
    count_token(part, event.id);
  }
  if (stream_) {
    const Json logprobs = part.logprobs.take();
    if (!text.empty() || !logprobs.is_null())
      exchange_->write(text_chunk(head_, i, text, logprobs, part.take_ids(head_.chat)));
    for (; part.sent < part.made.size(); ++part.sent)
      exchange_->write(call_chunk(head_, i, part.sent, part.made[part.sent]));
  } else {
    part.so_far += text;
  }
  if (!ended) return;
  part.finished = true;
  *part.ticket = true;  // a stop string: the scheduler does not know yet
  model_.metrics->count_finished(part.text.finish(), age());
  if (stream_)
    exchange_->write(finish_chunk(head_, i, part.finish_reason(), part.take_ids(head_.chat)));
  if (--open_ == 0) complete();
}

void Answer::count_token(Part& part, int32_t id) {
  if (!std::exchange(part.answers, true)) model_.metrics->first_token.observe(age().count());
  ++model_.metrics->generation_tokens;
  ++head_.usage.completion_tokens;
  if (part.shows_ids) part.ids.push_back(id);
}

void Answer::complete() {
  done_ = true;
  if (stream_) {
    if (head_.include_usage) exchange_->write(usage_chunk(head_));
    exchange_->write(kSseDone);
    exchange_->end();
    return;
  }
  std::vector<Choice> choices;
  for (auto& part : parts_) {
    std::string reason(part->finish_reason());
    choices.push_back({part->echo + part->so_far, std::move(part->made), std::move(reason),
                       part->logprobs.take(), part->take_ids(head_.chat)});
  }
  const std::string prompt_ids = head_.chat ? parts_[0]->take_prompt_ids() : std::string();
  respond_json(*exchange_, whole_answer(head_, choices, prompt_ids));
}

void Answer::fail(const ApiError& error) {
  done_ = true;
  cancel(error.status == 503 ? generate::FinishReason::kCancelled : generate::FinishReason::kError);
  if (stream_) {
    exchange_->write(sse(error_body(error)));
    exchange_->end();
  } else {
    respond_error(*exchange_, error);
  }
}

void Answer::cancel(generate::FinishReason reason) {
  for (auto& part : parts_) {
    if (!part->ticket || part->finished) continue;
    *part->ticket = true;
    part->finished = true;
    model_.metrics->count_finished(reason, age());
  }
}

}  // namespace lorry::serve
