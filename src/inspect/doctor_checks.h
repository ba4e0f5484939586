// How the doctor's checks are run: side by side, each in a process of its own. A sick driver hangs
// or kills whoever asks it, and a library that does not fit may do the same; so each is asked by a
// child that can be given up on.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/result.h"
#include "inspect/doctor.h"

namespace lorry::inspect {

/// What a check brings back. `facts` are for findings that need more than one check.
struct Checked {
  std::vector<Finding> findings;
  Json facts = Json::object();
};

struct Check {
  std::string subject;
  double seconds = 10;          ///< after which it is given up on
  std::string advice_if_stuck;  ///< what to do when it hung or crashed
  std::function<Checked()> run;
};

/// One result a check, in their order; of one that hung or crashed, a failure that says so. Call it
/// while the process has no other threads. Fails if no process can be made, and with kCancelled.
Result<std::vector<Checked>> run_checks(const std::vector<Check>& checks);

Finding ok(std::string subject, std::string text);
Finding warn(std::string subject, std::string text, std::string advice = {});
Finding fail(std::string subject, std::string text, std::string advice = {});

Json to_json(const Finding& finding);

}  // namespace lorry::inspect
