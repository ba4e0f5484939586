#include "inspect/doctor.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "inspect/doctor_bucket.h"
#include "inspect/doctor_checks.h"
#include "inspect/doctor_gpu.h"
#include "inspect/doctor_hub.h"
#include "inspect/doctor_libraries.h"
#include "inspect/doctor_machine.h"

namespace lorry::inspect {
namespace {

/// Reading libtorch from a cold network disk takes its time.
constexpr double kSecondsForLibraries = 60;

std::string temporary_directory() {
  const char* directory = std::getenv("TMPDIR");
  return directory != nullptr && *directory != '\0' ? directory : "/tmp";
}

bool is_remote(const std::string& bucket) {
  return bucket.find("://") != std::string::npos && !bucket.starts_with("file://");
}

bool has_driver() {
  void* library = dlopen("libnvidia-ml.so.1", RTLD_LAZY | RTLD_LOCAL);
  return library != nullptr;
}

Checked check_storage(const DoctorOptions& options) {
  const std::string local = is_remote(options.bucket) ? "" : options.bucket;
  Checked checked = check_disks(temporary_directory(), local);
  if (local.empty()) return checked;
  auto bucket = check_local_bucket(local, checked.facts["bucket_disk_ok"].get<bool>());
  for (auto& finding : bucket.findings) checked.findings.push_back(std::move(finding));
  return checked;
}

/// The checks in the order of the report. The first two bring facts, which are judged together.
std::vector<Check> all_checks(const DoctorOptions& options) {
  std::vector<Check> checks;
  checks.push_back({"gpu", options.seconds, "NVIDIA's driver is stuck; restart the machine", [] {
                      return Checked{{}, to_json(read_gpus())};
                    }});
  checks.push_back({"libtorch", std::max(options.seconds, kSecondsForLibraries),
                    "install torch anew: pip install --force-reinstall 'torch==2.11.*'", [options] {
                      if (options.data_only) return Checked();
                      const bool cuda = options.device != "cpu" && has_driver();
                      return Checked{{}, to_json(read_torch(cuda))};
                    }});
  checks.push_back({"cpu", options.seconds, "", [] { return check_machine(read_machine()); }});
  checks.push_back({"disk", options.seconds, "is a network mount gone?",
                    [options] { return check_storage(options); }});
  // Room for the requests' own limits to speak first: they know what did not answer.
  if (is_remote(options.bucket))
    checks.push_back({"bucket", options.seconds + 2,
                      "check the endpoint, and whether this machine may reach it",
                      [options] { return check_remote_bucket(options.bucket, options.seconds); }});
  checks.push_back({"hub", options.seconds + 2, "check HF_ENDPOINT and the network",
                    [options] { return check_hub(options.seconds); }});
  return checks;
}

void append(std::vector<Finding>& findings, std::vector<Finding> more) {
  std::move(more.begin(), more.end(), std::back_inserter(findings));
}

/// GPU, driver and libtorch: what each is, and whether they go together.
std::vector<Finding> judge_engine(const DoctorOptions& options, Checked gpu, Checked libraries) {
  const bool torch_known = libraries.findings.empty();
  TorchFacts torch = torch_facts_from(libraries.facts);
  if (!torch_known) torch.error = "unknown";
  std::vector<Finding> findings = std::move(gpu.findings);
  if (findings.empty())
    findings =
        judge_gpus(gpu_facts_from(gpu.facts), options.data_only ? nullptr : &torch, options.device);
  if (options.data_only)
    findings.push_back(ok("libtorch", "not looked for (--data-only)"));
  else if (torch_known)
    findings.push_back(judge_torch(torch));
  append(findings, std::move(libraries.findings));
  findings.push_back(check_arrow());
  return findings;
}

const char* label(Health health) {
  return health == Health::kOk ? "ok" : health == Health::kWarn ? "warn" : "FAIL";
}

int64_t count(const std::vector<Finding>& findings, Health health) {
  return std::count_if(findings.begin(), findings.end(),
                       [&](const Finding& finding) { return finding.health == health; });
}

}  // namespace

Result<std::vector<Finding>> examine(const DoctorOptions& options) {
  LORRY_ASSIGN(auto results, run_checks(all_checks(options)));
  auto findings = judge_engine(options, std::move(results[0]), std::move(results[1]));
  for (size_t i = 2; i < results.size(); ++i) append(findings, std::move(results[i].findings));
  return findings;
}

bool any_failed(const std::vector<Finding>& findings) { return count(findings, Health::kFail) > 0; }

Json findings_json(const std::vector<Finding>& findings) {
  Json list = Json::array();
  for (const auto& finding : findings) list.push_back(to_json(finding));
  return {{"findings", std::move(list)},
          {"failed", count(findings, Health::kFail)},
          {"warned", count(findings, Health::kWarn)}};
}

std::string format_findings(const std::vector<Finding>& findings) {
  std::string out;
  for (const auto& finding : findings) {
    std::string line =
        fmt::format("{:<5} {:<9} {}", label(finding.health), finding.subject, finding.text);
    if (!finding.advice.empty()) line += "; " + finding.advice;
    // Libraries' reasons may have line breaks; a finding is one line.
    std::replace(line.begin(), line.end(), '\n', ' ');
    out += line + '\n';
  }
  return out;
}

}  // namespace lorry::inspect
