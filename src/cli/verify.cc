#include "inspect/verify.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>

#include "base/log.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/shared_flags.h"

namespace lorry::cli {
namespace {

/// Damages that are told one by one.
constexpr size_t kNamed = 20;

class Verify final : public Command {
 public:
  void declare(Flags& flags) override {
    flags.bucket_name("--dataset", options_.dataset, "only this data set (all)");
    flags.bucket_name("--model", options_.model, "only this model (all)");
    flags.on("--repair", options_.repair,
             "take damaged parts out, so that their stage makes just them again");
    declare_wait(flags, options_.wait);
    flags.integer("--threads", threads_, between(0, 1024), "files read at a time; 0: eight");
  }

  Result<Outcome> run(const Context& context) override {
    LORRY_ASSIGN(options_.bucket, context.open_bucket(options_.repair));
    options_.threads = static_cast<int>(threads_);
    options_.progress = progress_line("verify", "bytes");
    LORRY_ASSIGN(const auto report, inspect::verify(options_));
    options_.progress = nullptr;
    if (report.unchecked > 0)
      log::warn("{} files carry no checksum and were compared by size only",
                format_count(report.unchecked));
    if (!report.damages.empty()) {
      complain(report, context);
      return Outcome{inspect::to_json(report), "", /*failed=*/true};
    }
    log::info("{} files, {}: all as they were written", format_count(report.files),
              format_bytes(static_cast<double>(report.bytes)));
    return Outcome{inspect::to_json(report), ""};
  }

 private:
  void complain(const inspect::VerifyReport& report, const Context& context) const {
    std::set<std::string> mends;
    for (size_t i = 0; i < report.damages.size(); ++i) {
      const auto& damage = report.damages[i];
      mends.insert(damage.mend);
      if (i < kNamed) log::error("{}: {}", damage.path, damage.what);
    }
    const auto damaged = static_cast<int64_t>(report.damages.size());
    const auto all = report.files + report.unchecked + damaged;
    const std::string commands = fmt::format("{}", fmt::join(mends, " && "));
    if (options_.repair)
      log::error(
          "{} of {} files were damaged and are taken out; now run again, with the options they "
          "had: {}",
          damaged, all, commands);
    else
      log::error(
          "{} of {} files are damaged; lorry verify --bucket {} --repair takes them out, "
          "then run: {}",
          damaged, all, context.bucket, commands);
  }

  inspect::VerifyOptions options_;
  int64_t threads_ = 0;
};

}  // namespace

std::unique_ptr<Command> make_verify() { return std::make_unique<Verify>(); }

}  // namespace lorry::cli
