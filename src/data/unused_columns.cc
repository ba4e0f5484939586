// Which columns are used, and which are not.
#include <arrow/type.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "data/column_names.h"
#include "data/marks.h"
#include "data/named_columns.h"
#include "data/row_rules.h"
#include "data/row_values.h"
#include "data/turn_shapes.h"

namespace lorry::data {
namespace {

/// The keys of a turn that standardize_row looks at.
bool is_turn_key(const RowRules& rules, const std::string& key) {
  static constexpr std::array kExtras = {"tool_calls", "function_call",     "tool_call_id",
                                         "name",       "reasoning_content", "thinking",
                                         "reasoning"};
  if (rules.role_key.empty() ? key == "role" || key == "from" : key == rules.role_key) return true;
  if (rules.content_key.empty() ? key == "content" || key == "value" : key == rules.content_key) {
    return true;
  }
  if (rules.content_key.empty() && key == "parts") return true;
  const bool named_by_roles = rules.role_key.empty() && is_role_key(key, rules.roles);
  return named_by_roles || is_mark(key) ||
         std::find(kExtras.begin(), kExtras.end(), key) != kExtras.end();
}

bool is_request_key(const std::string& key) {
  return key == names::kRequestMessages || key == names::kRequestTools;
}

/// The keys that turns of a column have: by its type, or by the sample if they are JSON.
std::vector<std::string> turn_keys(const arrow::Field& field, const std::vector<Json>& sample) {
  std::vector<std::string> keys;
  if (const auto* turn = turn_struct(*field.type())) {
    for (const auto& key : turn->fields()) keys.push_back(key->name());
    return keys;
  }
  const auto add_keys = [&](const Json& turn) {
    if (!turn.is_object()) return;
    for (const auto& [key, value] : turn.items()) {
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
    }
  };
  for (const Json& row : sample) {
    const auto turns = row.find(field.name());
    if (turns == row.end()) continue;
    add_keys(*turns);
    if (!turns->is_array()) continue;
    for (const Json& turn : *turns) add_keys(turn);
  }
  return keys;
}

bool holds_answer_texts(const std::string& column, const std::vector<Json>& sample) {
  return std::any_of(sample.begin(), sample.end(),
                     [&](const Json& row) { return answer_texts(field(row, column)).has_value(); });
}

}  // namespace

std::vector<std::string> unused_columns(const arrow::Schema& schema,
                                        const std::vector<Json>& sample, const RowRules& rules) {
  const bool is_text = rules.format == RowFormat::kText;
  std::vector<std::string> unused;
  for (const auto& field : schema.fields()) {
    if (std::find(rules.marks.begin(), rules.marks.end(), field->name()) != rules.marks.end())
      continue;
    const bool left_out_of_text = is_text && field->name() != rules.text &&
                                  (field->name() == rules.system || field->name() == rules.tools);
    const bool used = rules.uses(field->name()) && !left_out_of_text;
    if (!used) unused.push_back(field->name());
    const bool has_no_turns = field->name() == rules.tools || field->name() == rules.history ||
                              field->name() == rules.text;
    if (!used || has_no_turns) continue;
    const bool texts =
        (field->name() == rules.completion && holds_answer_texts(field->name(), sample)) ||
        field->name() == rules.system;
    for (const auto& key : turn_keys(*field, sample)) {
      if (texts && key == "text") continue;
      if (field->name() == rules.prompt && is_request_key(key)) continue;
      if (!is_turn_key(rules, key)) unused.push_back(fmt::format("{}[].{}", field->name(), key));
    }
  }
  return unused;
}

std::string describe_parts(const RowRules& rules) {
  std::vector<std::string> parts;
  const auto add = [&](const char* part, std::vector<std::string> columns) {
    std::erase(columns, "");
    if (!columns.empty()) {
      parts.push_back(fmt::format("{}: {}", part, fmt::join(columns, " + ")));
    }
  };
  if (rules.format == RowFormat::kText) {
    add("text", {rules.text});
  } else {
    add("system", {rules.system});
    add("conversation", {rules.conversation});
    add("prompt", {rules.history, rules.prompt, rules.input});
    add("answer", {rules.reasoning, rules.completion});
    add("tools", {rules.tools});
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

}  // namespace lorry::data
