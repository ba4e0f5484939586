// A request of chat or completions while it is answered: its sequences, and what of them is sent.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "generate/scheduler.h"
#include "serve/http_server.h"
#include "serve/openai_api.h"
#include "serve/openai_response.h"
#include "serve/prepare.h"
#include "serve/served_models.h"

namespace lorry::serve {

/// Held by its sequences until the last is done. Everything happens on the connection's strand.
class Answer : public std::enable_shared_from_this<Answer> {
 public:
  Answer(std::shared_ptr<HttpExchange> exchange, const ServedModel& model, AnswerHead head,
         const GenerationOptions& options);
  ~Answer();

  void add(generate::SequenceRequest sequence, const Echo& echo);
  void add_prompt_tokens(int64_t tokens) { head_.usage.prompt_tokens += tokens; }
  /// Submits what was added; the answer, or an error, goes to the exchange from then on.
  void start(generate::Scheduler& scheduler);

 private:
  struct Part;  // one sequence

  bool submit(generate::Scheduler& scheduler, size_t i);
  void start_stream_of(size_t i);
  void write_echo(size_t i);
  void take(size_t i, const generate::TokenEvent& event);
  void count_token(Part& part, int32_t id);
  void complete();
  void fail(const ApiError& error);
  /// Gives up what is not finished, and counts it so.
  void cancel(generate::FinishReason reason);
  std::chrono::duration<double> age() const { return std::chrono::steady_clock::now() - begin_; }

  std::shared_ptr<HttpExchange> exchange_;
  const ServedModel& model_;
  AnswerHead head_;
  bool stream_;
  GenerationOptions options_;
  std::vector<std::unique_ptr<Part>> parts_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  size_t open_ = 0;    // parts that are not finished
  bool done_ = false;  // the last word is said
};

}  // namespace lorry::serve
