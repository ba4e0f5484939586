#include "inspect/doctor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "cli/command.h"
#include "cli/known_settings.h"
#include "cli/shared_flags.h"

namespace lorry::cli {
namespace {

using inspect::Finding;
using inspect::Health;

/// Which settings are in force and where they come from; names only.
Finding settings_finding(const Settings& settings) {
  std::map<std::string, std::vector<std::string>> by_origin;
  for (const auto& [name, origin] : used_settings(settings))
    by_origin[origin.starts_with(".env") ? ".env" : origin].push_back(name);
  std::vector<std::string> parts;
  for (const auto& [origin, names] : by_origin)
    parts.push_back(fmt::format("from {}: {}", origin, fmt::join(names, ", ")));
  return {
      "settings",
      Health::kOk,
      parts.empty() ? "none in the environment or .env" : fmt::format("{}", fmt::join(parts, "; ")),
      {}};
}

class Doctor final : public Command {
 public:
  void declare(Flags& flags) override {
    flags.text("--device", options_.device, "auto|cpu|cuda",
               "cuda: a machine without a usable GPU is a failure, not a warning; cpu: GPUs do not "
               "matter");
    flags.on("--data-only", options_.data_only,
             "only data verbs are wanted here: no libtorch, no GPU");
    flags.real("--timeout", options_.seconds, between(1, 600),
               "seconds until a server that does not answer is given up on");
  }

  Result<Outcome> run(const Context& context) override {
    LORRY_TRY(check_device(options_.device));
    options_.bucket = context.bucket;
    LORRY_ASSIGN(auto findings, inspect::examine(options_));
    findings.push_back(settings_finding(context.settings));
    for (const auto& unknown : unknown_settings(context.settings)) {
      // What .env holds for other programs is their business.
      if (!unknown.name.starts_with("LORRY_") && unknown.meant.empty()) continue;
      findings.push_back(
          {"settings", Health::kWarn,
           fmt::format("{} ({}) is nothing that lorry reads", unknown.name, unknown.origin),
           unknown.meant.empty() ? "" : fmt::format("did you mean {}?", unknown.meant)});
    }
    Json json = inspect::findings_json(findings);
    Json used = Json::object();
    for (const auto& [name, origin] : used_settings(context.settings)) used[name] = origin;
    json["settings"] = std::move(used);
    return Outcome{std::move(json), inspect::format_findings(findings),
                   inspect::any_failed(findings)};
  }

 private:
  inspect::DoctorOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_doctor() { return std::make_unique<Doctor>(); }

}  // namespace lorry::cli
