#include <fmt/format.h>
#include <unistd.h>  // isatty

#include <csignal>
#include <cstdio>
#include <iostream>
#include <optional>

#include "base/cancel.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/line_editor.h"
#include "cli/shared_flags.h"
#include "engine/engine.h"

namespace lorry::cli {
namespace {

/// Greedy unless told otherwise, so that the same question has the same answer.
class Chat final : public Command {
 public:
  void declare(Flags& flags) override {
    flags.bucket_name(
        "--dataset", options_.dataset,
        "talk to the model as it was fine-tuned on this one (the only one; DATASET_NAME)",
        "DATASET_NAME");
    declare_model(flags, options_.model);
    declare_run_name(flags, run_name_, "which of the trainings on that data set (the only one)");
    flags.on("--base", base_, "talk to the base model");
    flags.text("--prompt", prompt_, "TEXT", "ask this once, print the answer and end");
    flags.text("--system", system_, "TEXT", "system message");
    flags.integer("--max-tokens", max_tokens_, at_least(1), "length of an answer at most");
    flags.real("--temperature", temperature_, between(0, 100), "0: always the likeliest token");
    flags.real("--top-p", top_p_, between(0, 1), "sample from the likeliest tokens of this share");
    flags.integer("--top-k", top_k_, at_least(0), "sample from the K likeliest tokens; 0: all");
    flags.integer("--seed", seed_, at_least(0), "seed of sampling");
    declare_engine_flags(flags, options_);
  }

  Result<Outcome> run(const Context& context) override {
    json_ = context.json;
    if (json_ && prompt_.empty()) return usage_error("--json needs --prompt");
    LORRY_TRY(choose_served(context, base_, run_name_, options_));
    options_.max_num_seqs = 1;
    LORRY_ASSIGN(const auto* engine, engine::load_engine());
    LORRY_ASSIGN(chat_, engine->open_local_chat(options_));
    if (!system_.empty()) messages_.push_back({{"role", "system"}, {"content", system_}});
    if (prompt_.empty()) return converse();
    LORRY_ASSIGN(const auto answer, ask(prompt_));
    return Outcome{{{"model", model_name()}, {"prompt", prompt_}, {"answer", answer}}, ""};
  }

 private:
  std::string model_name() const {
    return options_.dataset.empty() ? options_.model : options_.model + "/" + options_.dataset;
  }

  Json sampling() const {
    Json json = {{"max_tokens", max_tokens_}, {"temperature", temperature_}};
    const bool random = temperature_ > 0;
    if (random) json["top_p"] = top_p_;
    if (random && top_k_ > 0) json["top_k"] = top_k_;
    if (random && seed_ >= 0) json["seed"] = seed_;
    return json;
  }

  /// Asks, streams the answer to stdout, and keeps both in the conversation.
  Result<std::string> ask(const std::string& question) {
    messages_.push_back({{"role", "user"}, {"content", question}});
    auto answer =
        chat_->complete(model_name(), messages_, sampling(), [this](std::string_view text) {
          if (!json_) {
            std::fwrite(text.data(), 1, text.size(), stdout);
            std::fflush(stdout);
          }
          return !cancel_requested();
        });
    if (!answer.ok()) {
      messages_.erase(messages_.size() - 1);
      return std::move(answer).error();
    }
    if (!json_) std::puts("");
    if (typing_ && cancel_signal() == SIGINT) {  // ends the answer, not the conversation
      reset_cancel();
      install_cancel_handlers();
    }
    LORRY_TRY(check_cancelled());
    messages_.push_back({{"role", "assistant"}, {"content", *answer}});
    return answer;
  }

  /// The next question; nullopt when there is none.
  Result<std::optional<std::string>> next_question() {
    std::string line;
    if (typing_) {
      LORRY_ASSIGN(auto typed, read_line("> ", history_));
      line = typed.value_or("");
    } else if (!std::getline(std::cin, line)) {
      line.clear();
    }
    if (line.empty()) return std::optional<std::string>();
    history_.push_back(line);
    return std::optional(std::move(line));
  }

  Result<Outcome> converse() {
    typing_ = isatty(STDIN_FILENO) != 0 && isatty(STDERR_FILENO) != 0;
    log::info("{}; an empty line or Ctrl-D ends", model_name());
    for (;;) {
      LORRY_ASSIGN(const auto question, next_question());
      if (!question) break;
      const auto answer = ask(*question);
      if (!answer.ok() && answer.error().kind == ErrorKind::kCancelled) return answer.error();
      // A question that cannot be answered (too long, say) does not end the conversation.
      if (!answer.ok()) log::error("{}", answer.error().message);
    }
    return Outcome{};
  }

  serve::ServeOptions options_;
  std::unique_ptr<serve::LocalChat> chat_;
  Json messages_ = Json::array();
  std::vector<std::string> history_;  // questions
  bool base_ = false, json_ = false;
  bool typing_ = false;  // at a terminal
  std::string run_name_, prompt_, system_;
  int64_t max_tokens_ = 512, top_k_ = 0, seed_ = -1;
  double temperature_ = 0, top_p_ = 1;
};

}  // namespace

std::unique_ptr<Command> make_chat() { return std::make_unique<Chat>(); }

}  // namespace lorry::cli
