#include "chat/template_settings.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>

namespace lorry::chat {

Json TemplateSettings::to_json() const {
  Json json = Json::object();
  if (!name.empty()) json["name"] = name;
  if (variables.is_object() && !variables.empty()) json["variables"] = variables;
  if (system_as_user) json["system_as_user"] = true;
  if (!date.empty()) json["date"] = date;
  return json;
}

TemplateSettings TemplateSettings::from_json(const Json& json) {
  TemplateSettings out;
  if (!json.is_object()) return out;
  out.name = json.value("name", "");
  if (const auto found = json.find("variables"); found != json.end()) out.variables = *found;
  out.system_as_user = json.value("system_as_user", false);
  out.date = json.value("date", "");
  return out;
}

namespace {

/// Digits where 2025-01-31 has them.
bool is_written_so(const std::string& date) {
  constexpr std::string_view kForm = "0000-00-00";
  if (date.size() != kForm.size()) return false;
  for (size_t i = 0; i < kForm.size(); ++i) {
    const bool digit = date[i] >= '0' && date[i] <= '9';
    if (kForm[i] == '0' ? !digit : date[i] != kForm[i]) return false;
  }
  return true;
}

}  // namespace

Result<> check_date(const std::string& date) {
  if (date.empty()) return {};
  if (is_written_so(date)) {
    const std::chrono::year_month_day named{std::chrono::year(std::stoi(date.substr(0, 4))),
                                            std::chrono::month(std::stoi(date.substr(5, 2))),
                                            std::chrono::day(std::stoi(date.substr(8, 2)))};
    if (named.ok()) return {};
  }
  return usage_error(fmt::format("'{}' is no day such as 2025-01-31", date));
}

}  // namespace lorry::chat
