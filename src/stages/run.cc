#include "stages/run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <mutex>
#include <thread>

#include "base/cancel.h"
#include "base/log.h"
#include "base/progress.h"
#include "engine/engine.h"
#include "stages/shard_work.h"

namespace lorry::stages {
namespace {

/// Stands for "the other import failed" where a signal's number is expected.
constexpr int kOtherFailed = -1;

/// The first error of stages that run side by side.
class FirstError {
 public:
  void record(const char* stage, const Error& error) {
    std::lock_guard lock(mutex_);
    if (error_) return;
    error_ = error.with_context(stage);
    if (!cancel_requested()) request_cancel(kOtherFailed);
  }
  /// After all have ended: the error, and no request to stop left behind but a user's.
  Result<> take() {
    if (cancel_signal() == kOtherFailed) reset_cancel();
    if (error_) return *error_;
    return {};
  }

 private:
  std::mutex mutex_;
  std::optional<Error> error_;
};

/// "1 row has", "2 rows have".
std::string rows_that(int64_t rows, const char* one, const char* many) {
  return fmt::format("{} {} {}", format_count(rows), rows == 1 ? "row" : "rows",
                     rows == 1 ? one : many);
}

Result<> run_imports(RunOptions& options, RunReport& report) {
  FirstError first;
  const auto import_data = [&] {
    auto done = import_dataset(*options.dataset);
    if (!done.ok()) return first.record("import-dataset", done.error());
    report.dataset_import = *std::move(done);
    options.on_stage("import-dataset", describe(report.dataset_import));
  };
  const auto import_weights = [&] {
    auto done = import_model(*options.model);
    if (!done.ok()) return first.record("import-model", done.error());
    report.model_import = *std::move(done);
    options.on_stage("import-model", describe(report.model_import));
  };
  {
    std::jthread model_thread;
    if (options.model) model_thread = std::jthread(import_weights);
    if (options.dataset) import_data();
  }
  LORRY_TRY(first.take());
  if (options.dataset) options.pretokenize.dataset = report.dataset_import.dataset;
  if (options.model) options.pretokenize.model = report.model_import.model;
  return {};
}

/// How often a run begins again because another process has replaced what it made.
constexpr int kAttempts = 10;

/// False: a stage found that its input is not what this run made (or found) before.
Result<bool> run_once(RunOptions& options, const engine::Engine& engine, RunReport& report) {
  LORRY_TRY(run_imports(options, report));
  report.dataset = options.pretokenize.dataset;
  report.model = options.pretokenize.model;
  options.pretokenize.expected_input = report.dataset_import.standardized.digest;
  options.pretokenize.expected_model = report.model_import.digest;
  LORRY_ASSIGN(report.pretokenize, pretokenize(options.pretokenize).with_context("pretokenize"));
  if (report.pretokenize.input_changed) return false;
  options.on_stage("pretokenize", describe(report.pretokenize));
  log_losses(options.pretokenize, report.pretokenize);
  const std::string cut = describe_cut(report.pretokenize.counts, options.train.max_length);
  if (!cut.empty()) log::info("{}", cut);

  options.train.dataset = report.dataset;
  options.train.model = report.model;
  options.train.expected_data = report.pretokenize.digest;
  options.train.expected_model = report.model_import.digest;
  LORRY_ASSIGN(report.train, engine.train(options.train).with_context("train"));
  if (report.train.input_changed) return false;
  options.on_stage("train", describe(report.train));
  return true;
}

}  // namespace

Result<RunReport> run(RunOptions options) {
  if (!options.on_stage) options.on_stage = [](const auto&, const auto&) {};
  LORRY_ASSIGN(const engine::Engine* engine, engine::load_engine());
  for (int attempt = 1; attempt <= kAttempts; ++attempt) {
    RunReport report;
    LORRY_ASSIGN(const bool done, run_once(options, *engine, report));
    if (done) return report;
    log::info(
        "another process has made other data or another model of these names meanwhile; "
        "looking again from the start");
  }
  return unavailable(fmt::format(
      "other processes replaced the inputs of this run {} times; give its data set or model a name "
      "of its own with --dataset or --model",
      kAttempts));
}

std::string describe(const ImportDatasetReport& report) {
  std::string text =
      fmt::format("data set {}: {} rows in {} shard{}", report.dataset, format_count(report.rows),
                  report.shards, report.shards == 1 ? "" : "s");
  if (report.dropped > 0) text += fmt::format(", {} skipped", format_count(report.dropped));
  if (!report.up_to_date && report.complete && report.seconds > 0) {
    text += fmt::format(", {} rows/s", format_count(int64_t(double(report.rows) / report.seconds)));
  }
  if (!report.complete) text += "; " + describe_missing(report.missing, report.shards);
  if (report.up_to_date) text += ", nothing to do";
  return text;
}

std::string describe(const ImportModelReport& report) {
  return fmt::format("model {}: {}, {} files, {}{}", report.model, report.architecture,
                     report.files, format_bytes(static_cast<double>(report.bytes)),
                     report.up_to_date ? ", nothing to do" : "");
}

std::string describe(const StandardizeReport& report) {
  std::string text = fmt::format("standardized {} of {} rows as {}", format_count(report.rows),
                                 format_count(report.rows_in), report.format);
  if (!report.parts.empty()) text += fmt::format(" ({})", report.parts);
  if (!report.unused_columns.empty()) {
    text += fmt::format("; not used: {}", fmt::join(report.unused_columns, ", "));
  }
  for (const auto& [reason, rows] : report.dropped)
    text += fmt::format("; {} dropped: {}", format_count(rows), reason);
  for (const auto& [note, rows] : report.noted)
    text += fmt::format("; {} kept with {}", format_count(rows), note);
  if (!report.complete) text += "; " + describe_missing(report.missing, report.shards);
  if (report.up_to_date) text += ", nothing to do";
  return text;
}

namespace {

std::string describe(const ExcessCounts& excess, Excess strategy) {
  if (excess.rows == 0) return "";
  const std::string longer =
      fmt::format("; {} longer than --max-length", rows_that(excess.rows, "is", "are"));
  if (strategy == Excess::kDrop) return longer + " and left out";
  if (strategy == Excess::kSplit) {
    const std::string left_out = excess.pieces_left_out == 0
                                     ? std::string()
                                     : fmt::format(", without {} with nothing to learn",
                                                   format_count(excess.pieces_left_out));
    return fmt::format("{}: split into {} pieces{}", longer, format_count(excess.pieces), left_out);
  }
  return fmt::format("{}: cut at the end, {} tokens in all", longer,
                     format_count(excess.tokens_left_out));
}

}  // namespace

std::string describe(const PretokenizeReport& report) {
  const TokenCounts& counts = report.counts;
  std::string text = fmt::format("{} rows, {} tokens, {} to learn", format_count(counts.rows),
                                 format_count(counts.tokens), format_count(counts.target_tokens));
  if (report.dropped > 0)
    text += fmt::format("; {} left out", rows_that(report.dropped, "was", "were"));
  text += describe(counts.excess, report.length.excess);
  if (counts.rows_without_target > 0)
    text +=
        fmt::format("; {} nothing to learn", rows_that(counts.rows_without_target, "has", "have"));
  if (counts.rows_without_end > 0) text += "; " + describe_no_end(counts);
  if (counts.rows_with_new_call_ids > 0)
    text += fmt::format(
        "; {} new ids of tool calls, since the chat template asks for nine letters "
        "and digits",
        rows_that(counts.rows_with_new_call_ids, "has", "have"));
  if (counts.longer_than_4096() > 0)
    text += fmt::format("; {} longer than 4,096 tokens, the longest {}",
                        rows_that(counts.longer_than_4096(), "is", "are"),
                        format_count(counts.longest));
  if (!report.complete) text += "; " + describe_missing(report.missing, report.shards);
  if (report.up_to_date) text += ", nothing to do";
  return text;
}

void log_losses(const PretokenizeOptions& options, const PretokenizeReport& report) {
  if (options.losses == TemplateLosses::kAllow) return;
  for (const std::string& sentence : describe_losses(report.counts)) log::warn("{}", sentence);
}

std::string describe(const train::TrainReport& report) {
  if (report.already_done)
    return fmt::format("trained: {} steps, loss {:.4f}, nothing to do", format_count(report.steps),
                       report.last_loss);
  return fmt::format("trained: {} steps, {} tokens, loss {:.4f}, {}", format_count(report.steps),
                     format_count(report.tokens), report.last_loss,
                     format_duration(report.seconds));
}

}  // namespace lorry::stages
