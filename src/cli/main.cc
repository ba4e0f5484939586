// The program: finds the verb, reads its flags, runs it, and turns the error into words and an exit
// code. The only place that does.
#include <fmt/format.h>
#include <unistd.h>  // isatty

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/cancel.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/version.h"
#include "cli/bucket_uri.h"
#include "cli/command.h"
#include "cli/known_settings.h"

namespace lorry::cli {
namespace {

int exit_code(const Error& error) {
  if (error.kind == ErrorKind::kUsage) return 2;
  if (error.kind != ErrorKind::kCancelled) return 1;
  if (cancel_signal() == SIGINT) return 130;
  if (cancel_signal() == SIGTERM) return 143;
  return 1;
}

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (!text.empty() && text.back() != '\n') std::fputc('\n', stdout);
  std::fflush(stdout);
}

std::string overview() {
  std::string text = fmt::format(
      "lorry {}: fine-tunes language models on more data than fits in memory, and serves them\n\n"
      "Usage: lorry VERB [flags]\n\nVerbs:\n",
      kVersion);
  for (const auto& verb : verbs()) text += fmt::format("  {:<16}{}\n", verb.name, verb.summary);
  return text +
         "\nlorry VERB --help shows a verb's flags and an example. From nothing to a model that "
         "answers:\n"
         "  lorry import-dataset data.jsonl && lorry import-model ./model && lorry pretokenize &&\n"
         "  lorry train && lorry serve\n"
         "Options are flags, variables of the environment, or lines in .env, in that order.\n";
}

const Verb* find_verb(const std::string& name) {
  for (const auto& verb : verbs())
    if (verb.name == name) return &verb;
  return nullptr;
}

Error unknown_verb(const std::string& name) {
  if (name.starts_with("-"))
    return usage_error(fmt::format("{} stands before the verb; write lorry VERB {}", name, name));
  std::vector<std::string> names;
  for (const auto& verb : verbs()) names.push_back(verb.name);
  const auto meant = nearest(name, names);
  return usage_error(
      fmt::format("there is no verb '{}'; {}", name,
                  meant ? fmt::format("did you mean {}?", *meant) : "lorry --help lists them"));
}

/// Says aloud what nothing reads: usually a misspelt name.
void note_ignored_settings(const Settings& settings) {
  for (const auto& unknown : unknown_settings(settings)) {
    const bool ours = unknown.name.starts_with("LORRY_");
    log::write(
        ours ? log::Level::kWarn : log::Level::kInfo,
        fmt::format("{}{} sets {}, which lorry does not read{}",
                    ours ? "" : "note: ", unknown.origin, unknown.name,
                    unknown.meant.empty() ? "" : fmt::format("; did you mean {}?", unknown.meant)));
  }
}

struct Common {
  std::string bucket, bucket_name;
  bool json = false, quiet = false, verbose = false;

  void declare(Flags& flags) {
    flags.text("--bucket", bucket, "URI",
               "the bucket: a directory, s3://NAME[/PREFIX], gs:// or az://; BUCKET_NAME=x means "
               "s3://x (./bucket)",
               "BUCKET_NAME");
    flags.on("--json", json, "results as JSON on stdout");
    flags.on("--quiet", quiet, "warnings and errors only");
    flags.on("--verbose", verbose, "more of what happens");
  }
};

Result<Context> make_context(const Common& common, Settings settings, const Flags& flags) {
  Context context;
  context.bucket = bucket_uri(common.bucket, flags.origin("--bucket").value_or("") == "--bucket");
  context.settings = std::move(settings);
  context.flags = &flags;
  context.json = common.json;
  context.quiet = common.quiet;
  context.verbose = common.verbose;
  const char* term = std::getenv("TERM");
  context.terminal = isatty(STDOUT_FILENO) != 0;
  context.colour = context.terminal && std::getenv("NO_COLOR") == nullptr &&
                   !(term != nullptr && std::string_view(term) == "dumb");
  if (common.quiet)
    log::set_level(log::Level::kWarn);
  else if (common.verbose)
    log::set_level(log::Level::kDebug);
  if (common.quiet)
    set_progress_mode(ProgressMode::kOff);
  else
    set_progress_mode(isatty(STDERR_FILENO) != 0 ? ProgressMode::kLive : ProgressMode::kPlain);
  return context;
}

/// The exit code.
Result<int> run_verb(const Verb& verb, std::vector<std::string> args, bool& json) {
  LORRY_ASSIGN(auto settings, Settings::load("."));
  settings.export_dotenv();
  Flags flags(verb.name, verb.summary, verb.example);
  const auto command = verb.make();
  command->declare(flags);
  Common common;
  common.declare(flags);
  json = std::count(args.begin(), args.end(), "--json") > 0;  // for errors of the flags themselves
  const auto parsed = flags.parse(std::move(args), settings);
  json |= common.json;
  if (!parsed.ok()) return parsed.error();
  if (!*parsed) {
    print(flags.help());
    return 0;
  }
  LORRY_ASSIGN(const auto context, make_context(common, settings, flags));
  if (verb.name != "doctor") note_ignored_settings(settings);  // which has a line for each
  install_cancel_handlers();
  std::error_code ignored;
  const bool had_bucket = context.bucket.find("://") != std::string::npos ||
                          std::filesystem::exists(context.bucket, ignored);
  auto result = command->run(context);
  // A verb that failed before it wrote anything leaves no empty bucket; remove spares a full one.
  if (!result.ok() && !had_bucket) std::filesystem::remove(context.bucket, ignored);
  LORRY_ASSIGN(const auto outcome, std::move(result));
  print(json ? dump_json(outcome.json) : outcome.text);
  return outcome.failed ? 1 : 0;
}

Result<int> dispatch(std::vector<std::string> args, bool& json) {
  if (args.empty()) {
    print(overview());
    return 0;
  }
  std::string first = args.front();
  if (first == "--version" || first == "-V") {
    print(fmt::format("lorry {}", kVersion));
    return 0;
  }
  if (first == "--help" || first == "-h" || (first == "help" && args.size() == 1)) {
    print(overview());
    return 0;
  }
  args.erase(args.begin());
  if (first == "help") {
    first = args.front();
    args = {"--help"};
  }
  const Verb* verb = find_verb(first);
  if (verb == nullptr) return unknown_verb(first);
  return run_verb(*verb, std::move(args), json);
}

int run(int argc, char** argv) {
  bool json = false;
  Result<int> result = 0;
  try {
    result = dispatch({argv + 1, argv + argc}, json);
  } catch (const std::bad_alloc&) {
    result = unavailable("out of memory");
  } catch (const std::exception& e) {
    result = corrupt_data(fmt::format("unexpected: {}; please report this", e.what()));
  }
  if (result.ok()) return *result;
  const Error& error = result.error();
  log::error("{}", error.message);
  if (json)
    print(dump_json(
        Json{{"error", {{"kind", error_kind_name(error.kind)}, {"message", error.message}}}}));
  // What a signal interrupted may still run on another thread (serve's loading): it must not meet
  // globals that are being destroyed.
  if (error.kind == ErrorKind::kCancelled) std::_Exit(exit_code(error));
  return exit_code(error);
}

}  // namespace
}  // namespace lorry::cli

int main(int argc, char** argv) { return lorry::cli::run(argc, argv); }
