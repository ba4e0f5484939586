// `lorry doctor`: what this machine has for training and serving, and what to do about what is
// missing. One file a subject: doctor_machine, doctor_gpu, doctor_libraries, doctor_bucket,
// doctor_hub; doctor_checks runs them.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace lorry::inspect {

enum class Health { kOk, kWarn, kFail };

/// One line of the report.
struct Finding {
  std::string subject;  ///< "driver"
  Health health = Health::kOk;
  std::string text;    ///< what was found
  std::string advice;  ///< what to do about it; empty where all is well, or where `text` says it
};

struct DoctorOptions {
  std::string bucket = "./bucket";
  /// auto: a machine without a GPU is worth a warning; cuda, cuda:N: it is a failure; cpu: GPUs and
  /// their drivers are not judged.
  std::string device = "auto";
  bool data_only = false;  ///< only the data verbs are wanted: neither libtorch nor a GPU
  double seconds = 10;     ///< until a server that does not answer is given up on
};

/// Looks at everything, side by side, in about `seconds` at most (libtorch, on a slow disk, may
/// take up to a minute). Fails only if the checks cannot be begun, or with kCancelled.
Result<std::vector<Finding>> examine(const DoctorOptions& options);

bool any_failed(const std::vector<Finding>& findings);

/// {findings: [{subject, health: "ok"|"warn"|"fail", text, advice?}], failed, warned}.
Json findings_json(const std::vector<Finding>& findings);
/// A line a finding: "FAIL  driver    550.54 is too old ...; install 580 or newer".
std::string format_findings(const std::vector<Finding>& findings);

}  // namespace lorry::inspect
