// How a model's chat template is used, beyond what its files say. Recorded with what is made by it,
// so that what was trained is what is served.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/json.h"
#include "base/result.h"

namespace lorry::chat {

struct TemplateSettings {
  /// Of a model that has several templates; empty: "default", and "tool_use" for rows with tools.
  std::string name;
  /// Further variables of the template (enable_thinking): an object, or null. Those of a request go
  /// before them.
  Json variables;
  /// What the system says goes before the next user message, as Gemma's own template has it.
  bool system_as_user = false;
  /// YYYY-MM-DD, which strftime_now formats; empty: the time of rendering.
  std::string date;

  /// What differs from the defaults; an empty object if nothing does. And back: what is no such
  /// record gives the defaults.
  Json to_json() const;
  static TemplateSettings from_json(const Json& json);
};

/// Fails with wrong usage unless `date` is a day of the calendar, as 2025-01-31, or empty.
Result<> check_date(const std::string& date);

}  // namespace lorry::chat
