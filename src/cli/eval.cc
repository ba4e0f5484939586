#include <arrow/record_batch.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/log.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/shared_flags.h"
#include "data/shard.h"
#include "engine/engine.h"
#include "inspect/names.h"
#include "stages/messages.h"
#include "store/layout.h"
#include "train/evaluate.h"

namespace lorry::cli {
namespace {

/// What a conversation says after its prompt: the answer that the models' are set beside.
struct Question {
  train::EvalPrompt prompt;
  std::string reference;
};

/// The messages before the last turn of the assistant, and that turn; nullopt if there is none.
std::optional<Question> question_of(const stages::Example& example) {
  if (example.is_text || !example.messages.is_array()) return std::nullopt;
  for (size_t i = example.messages.size(); i-- > 1;) {
    const Json& message = example.messages[i];
    if (message.value("role", "") != "assistant" || !message.contains("content")) continue;
    if (!message.at("content").is_string()) continue;
    Question question;
    question.reference = message.at("content").get<std::string>();
    question.prompt.messages = Json::array();
    for (size_t j = 0; j < i; ++j) question.prompt.messages.push_back(example.messages[j]);
    question.prompt.tools = example.tools;
    return question;
  }
  return std::nullopt;
}

class Eval final : public Command {
 public:
  void declare(Flags& flags) override {
    declare_dataset(flags, options_.dataset);
    declare_model(flags, options_.model);
    flags.text("--trained-on", trained_on_, "NAME",
               "data set that the model was fine-tuned on (--dataset, or the only one)");
    declare_run_name(flags, run_name_, "which of the trainings on that data set (the only one)");
    flags.text("--adapter", options_.adapter, "DIR",
               "a PEFT adapter instead of a finished training");
    flags.on("--base", base_, "evaluate the base model alone");
    flags.integer("--max-rows", options_.max_rows, at_least(0), "the first N examples; 0: all");
    flags.integer("--max-length", options_.max_length, at_least(2),
                  "tokens; longer examples are cut");
    flags.integer("--generate", generate_, at_least(0),
                  "answer the first N conversations greedily, beside their references");
    flags.integer("--max-new-tokens", options_.max_new_tokens, at_least(1),
                  "length of an answer at most");
    flags.choice("--dtype", options_.dtype, {"auto", "float32", "bfloat16", "float16"},
                 "type of the weights and of the arithmetic");
    flags.text("--device", options_.device, "auto|cpu|cuda", "where to run");
  }

  Result<Outcome> run(const Context& context) override {
    LORRY_TRY(check_device(options_.device));
    options_.bucket = context.bucket;
    LORRY_ASSIGN(const auto bucket, context.open_bucket(false));
    LORRY_ASSIGN(options_.model, inspect::choose_model(*bucket, options_.model));
    LORRY_ASSIGN(options_.dataset, inspect::choose_dataset(*bucket, options_.dataset));
    LORRY_TRY(choose_tuned(context, *bucket));
    const std::string ready = store::model_ready_dir(options_.model, options_.dataset);
    LORRY_ASSIGN(const auto info, bucket->read_info(ready));
    if (!info)
      return not_found(fmt::format("{} is not complete in bucket {}; run lorry pretokenize first",
                                   ready, bucket->uri()));
    if (generate_ > 0) LORRY_TRY(read_questions(*bucket));
    LORRY_ASSIGN(const auto* engine, engine::load_engine());
    LORRY_ASSIGN(const auto report, engine->evaluate(options_));
    return Outcome{to_json(report), to_text(report)};
  }

 private:
  /// Sets options_.run, or leaves it empty where the base model or an adapter is meant.
  Result<> choose_tuned(const Context& context, const store::Bucket& bucket) {
    if (base_ && (!options_.adapter.empty() || !trained_on_.empty() || !run_name_.empty()))
      return usage_error("--base is the base model alone; give it without a fine-tuned one");
    if (!options_.adapter.empty() && (!trained_on_.empty() || !run_name_.empty()))
      return usage_error("--adapter is a fine-tuned model of its own; give it without the others");
    if (base_ || !options_.adapter.empty()) return {};
    serve::ServeOptions served;
    served.model = options_.model;
    served.dataset = trained_on_;
    if (trained_on_.empty()) {
      // What was fine-tuned on the very data goes before what was on other.
      LORRY_ASSIGN(const auto runs, inspect::trained_datasets(bucket, options_.model));
      const auto on_it = [&](const std::string& run) {
        return run.substr(0, run.find('@')) == options_.dataset;
      };
      if (std::any_of(runs.begin(), runs.end(), on_it)) served.dataset = options_.dataset;
    }
    LORRY_TRY(choose_served(context, false, run_name_, served, "--trained-on"));
    options_.run = served.dataset;
    return {};
  }

  Result<> read_questions(const store::Bucket& bucket) {
    const std::string dir = store::standardized_dir(options_.dataset);
    LORRY_ASSIGN(const auto info, bucket.read_info(dir));
    const int64_t last = info ? info->value("count", int64_t{-1}) : -1;
    for (int64_t shard = 0; shard <= last && wants_more(); ++shard) {
      LORRY_ASSIGN(const auto stream,
                   data::ShardStream::open(bucket, store::shard_dir(dir, shard)));
      LORRY_TRY(read_shard(*stream));
    }
    if (!questions_.empty()) return {};
    return invalid_input(
        fmt::format("{} has no conversation with an answer of the assistant to set beside; leave "
                    "out --generate",
                    dir));
  }

  bool wants_more() const { return static_cast<int64_t>(questions_.size()) < generate_; }

  Result<> read_shard(data::ShardStream& stream) {
    while (wants_more()) {
      LORRY_ASSIGN(const auto batch, stream.next());
      if (!batch) return {};
      const stages::ExampleReader reader(*batch);
      for (int64_t row = 0; row < batch->num_rows() && wants_more(); ++row) {
        LORRY_ASSIGN(const auto example, reader.at(row));
        auto question = question_of(example);
        if (!question) continue;
        options_.prompts.push_back(question->prompt);
        questions_.push_back(std::move(*question));
      }
    }
    return {};
  }

  Json to_json(const train::EvalReport& report) const {
    Json models = Json::array(), answers = Json::array();
    for (const auto& model : report.models) {
      models.push_back(
          {{"name", model.name}, {"loss", model.loss}, {"perplexity", model.perplexity()}});
    }
    for (size_t i = 0; i < questions_.size(); ++i) {
      Json texts = Json::object();
      for (const auto& model : report.models) texts[model.name] = model.answers[i];
      answers.push_back({{"messages", questions_[i].prompt.messages},
                         {"reference", questions_[i].reference},
                         {"answers", std::move(texts)}});
    }
    return {{"model", options_.model},
            {"dataset", options_.dataset},
            {"examples", report.examples},
            {"empty_examples", report.empty_examples},
            {"cut_examples", report.cut_examples},
            {"target_tokens", report.target_tokens},
            {"seconds", report.seconds},
            {"models", std::move(models)},
            {"answers", std::move(answers)}};
  }

  std::string to_text(const train::EvalReport& report) const {
    std::string out =
        fmt::format("{}: {} examples, {} target tokens\n", options_.dataset,
                    format_count(report.examples), format_count(report.target_tokens));
    if (report.empty_examples > 0)
      out += fmt::format("  {} without a target left out\n", format_count(report.empty_examples));
    if (report.cut_examples > 0)
      out += fmt::format("  {} cut to --max-length {}\n", format_count(report.cut_examples),
                         options_.max_length);
    size_t width = 0;
    for (const auto& model : report.models) width = std::max(width, model.name.size());
    for (const auto& model : report.models) {
      out += fmt::format("{:<{}}  loss {:.4f}  perplexity {:.4g}\n", model.name, width, model.loss,
                         model.perplexity());
    }
    for (size_t i = 0; i < questions_.size(); ++i) {
      const Json& last = questions_[i].prompt.messages.back();
      const Json content = last.value("content", Json());
      out += fmt::format("\n{}. {}: {}\n   reference: {}\n", i + 1, last.value("role", ""),
                         content.is_string() ? content.get<std::string>() : dump_json(content),
                         questions_[i].reference);
      for (const auto& model : report.models)
        out += fmt::format("   {}: {}\n", model.name, model.answers[i]);
    }
    out.pop_back();
    return out;
  }

  train::EvalOptions options_;
  std::string trained_on_, run_name_;
  bool base_ = false;
  int64_t generate_ = 0;
  std::vector<Question> questions_;
};

}  // namespace

std::unique_ptr<Command> make_eval() { return std::make_unique<Eval>(); }

}  // namespace lorry::cli
