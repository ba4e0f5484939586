#include "cli/encoding_flags.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace lorry::cli {

void declare_excess_length(Flags& flags, std::string& target, const std::string& help) {
  flags.choice("--excess-length", target, {"truncate", "drop", "split"}, help);
}

void declare_template_losses(Flags& flags, std::string& target) {
  flags.choice("--template-losses", target, {"fail", "warn", "allow"},
               "rows of which the chat template does not show something: without an answer or a "
               "tool call they fail, others are kept with a warning; all are kept with a warning; "
               "or without");
}

void TemplateFlags::declare(Flags& flags) {
  flags.on("--system-as-user", settings_.system_as_user,
           "what the system says goes before the next user message, for templates without a "
           "system role");
  flags.text("--template-kwargs", variables_, "JSON",
             "further variables of the chat template, as {\"enable_thinking\": false}");
  flags.text("--chat-template-name", settings_.name, "NAME",
             "which one, of a model with several chat templates (default; tool_use for rows with "
             "tools)");
  flags.text("--date", settings_.date, "YYYY-MM-DD",
             "the day for templates that write it (that of the data set's first import)");
}

Result<chat::TemplateSettings> TemplateFlags::settings() const {
  chat::TemplateSettings out = settings_;
  LORRY_TRY(chat::check_date(out.date).with_context("--date"));
  if (variables_.empty()) return out;
  auto variables = parse_json(variables_, "--template-kwargs");
  if (!variables.ok() || !variables->is_object())
    return usage_error(
        fmt::format("--template-kwargs: '{}' is not a JSON object such as "
                    "{{\"enable_thinking\": false}}",
                    variables_));
  out.variables = *std::move(variables);
  return out;
}

void EncodingFlags::declare(Flags& flags) {
  flags.choice("--train-on", train_on_, {"assistant", "last", "all"},
               "what counts in the loss: every assistant turn, the last one, or all tokens");
  // Not train's variable: that one must not change what is made here.
  flags.integer("--max-length", length_.max_length, at_least(0),
                "tokens of a row at most; 0: rows stay whole, and training cuts them "
                "(LORRY_PRETOKENIZE_MAX_LENGTH)",
                "LORRY_PRETOKENIZE_MAX_LENGTH");
  declare_excess_length(flags, excess_,
                        "rows longer than --max-length: cut at the end, left out, or split into "
                        "several");
}

Result<> EncodingFlags::apply(const Context& context) {
  if (length_.max_length == 1)
    return usage_error("--max-length: a row of one token has nothing to predict; 2 or more");
  // A variable may be meant for `run`, whose limit is that of training.
  if (context.flags->origin("--excess-length") == "--excess-length" && !length_.is_set())
    return usage_error(
        "--excess-length says what becomes of rows longer than --max-length; give that, too");
  length_.excess = stages::excess_from(excess_);
  return {};
}

}  // namespace lorry::cli
