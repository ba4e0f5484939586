#include "data/row_rules.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace lorry::data {

std::string_view row_format_name(RowFormat format) {
  switch (format) {
    case RowFormat::kShareGpt:
      return "sharegpt";
    case RowFormat::kMessages:
      return "messages";
    case RowFormat::kAlpaca:
      return "alpaca";
    case RowFormat::kPromptCompletion:
      return "prompt-completion";
    case RowFormat::kText:
      return "text";
  }
  return "";
}

Json RowOptions::to_json() const {
  return Json{{"format", format}, {"columns", columns}, {"ignored", ignored},
              {"roles", roles},   {"prefer", prefer},   {"set", placeholders}};
}

bool RowRules::needs(const std::string& column) const {
  const auto is_in = [&](const std::vector<std::string>& list) {
    return std::find(list.begin(), list.end(), column) != list.end();
  };
  return uses(column) || is_in(marks) || is_in(watched) || is_in(media) ||
         std::any_of(other_formats.begin(), other_formats.end(), is_in);
}

}  // namespace lorry::data
