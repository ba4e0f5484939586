#include "data/named_columns.h"

#include <arrow/type.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <set>

#include "data/column_names.h"
#include "data/left_out.h"
#include "data/row_values.h"

namespace lorry::data {
namespace {

/// A row's value as text to compare; empty for what is none.
std::string text_at(const Json& row, const std::string& column) {
  const Json& value = field(row, column);
  if (value.is_string()) return value.get<std::string>();
  return value.is_number() ? dump_json(value) : std::string();
}

std::string without_space(std::string text) {
  std::erase_if(text, [](unsigned char c) { return std::isspace(c) != 0; });
  return text;
}

/// Takes the last place of `part` out of the text.
void remove_text(std::string& text, const std::string& part) {
  const size_t at = part.empty() ? std::string::npos : text.rfind(part);
  if (at != std::string::npos) text.erase(at, part.size());
}

}  // namespace

const arrow::DataType* turn_struct(const arrow::DataType& type) {
  if (type.id() == arrow::Type::STRUCT) return &type;
  if (type.num_fields() != 1 || type.field(0)->type()->id() != arrow::Type::STRUCT) return nullptr;
  return type.field(0)->type().get();
}

std::string lower(std::string text) {
  for (char& c : text) c = char(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

NamedColumns::NamedColumns(const arrow::Schema& schema, const std::vector<Json>& sample,
                           const RowOptions& options)
    : schema_(schema), sample_(sample), options_(options), chosen_(options.columns) {}

Result<> NamedColumns::check_options() const {
  static constexpr std::array kParts = {
      "conversations", "messages",  "conversation", "role",     "content",    "instruction",
      "input",         "output",    "history",      "prompt",   "completion", "text",
      "system",        "reasoning", "tools",        "functions"};
  for (const auto& [part, column] : options_.columns) {
    if (std::find(kParts.begin(), kParts.end(), part) == kParts.end()) {
      return invalid_input(fmt::format("--columns: unknown part \"{}\"; the parts are {}", part,
                                       fmt::join(kParts, ", ")));
    }
    if (part == "role" || part == "content" || schema_.GetFieldIndex(column) >= 0) continue;
    return invalid_input(fmt::format("--columns {}={}: there is no column {}; there are {}", part,
                                     column, column, names()));
  }
  for (const auto& column : options_.ignored) {
    if (schema_.GetFieldIndex(column) >= 0) continue;
    return invalid_input(
        fmt::format("--ignore-columns {}: there is no such column; there are {}", column, names()));
  }
  for (const auto& [name, role] : options_.roles) {
    if (find_role(role, {})) continue;
    return usage_error(fmt::format(
        "--roles {}={}: unknown role; the roles are user, assistant, system and tool", name, role));
  }
  return {};
}

std::string NamedColumns::of(const std::string& name) const {
  std::string found;
  for (const auto& column : schema_.field_names()) {
    if (column == name) found = column;
    if (found.empty() && lower(column) == name) found = column;
  }
  return is_ignored(found) ? "" : found;
}

const std::string* NamedColumns::chosen(std::string_view part) const {
  for (const auto& [name, column] : chosen_) {
    if (name == part) return &column;
  }
  return nullptr;
}

bool NamedColumns::is_chosen(const std::string& column) const {
  return std::any_of(chosen_.begin(), chosen_.end(),
                     [&](const auto& pair) { return pair.second == column; });
}

void NamedColumns::choose(std::string part, std::string column) {
  chosen_.emplace_back(std::move(part), std::move(column));
}

bool NamedColumns::is_ignored(const std::string& column) const {
  const auto& ignored = options_.ignored;
  return std::find(ignored.begin(), ignored.end(), column) != ignored.end();
}

bool NamedColumns::has_values(const std::string& column) const {
  return std::any_of(sample_.begin(), sample_.end(),
                     [&](const Json& row) { return !holds_nothing(field(row, column)); });
}

std::vector<std::string> NamedColumns::all(Names list, const RowRules& rules) const {
  std::vector<std::string> found;
  for (const char* name : list) {
    const std::string column = of(name);
    if (column.empty() || rules.uses(column) || is_chosen(column)) continue;
    const bool is_lone_account =
        (std::string_view(name) == names::kUser && !has(names::kAssistant)) ||
        (std::string_view(name) == names::kAssistant && !has(names::kUser));
    if (!is_lone_account) found.push_back(column);
  }
  std::stable_partition(found.begin(), found.end(),
                        [this](const auto& column) { return has_values(column); });
  return found;
}

Overlap NamedColumns::overlap(const std::string& whole, const std::string& part) const {
  Overlap found;
  for (const Json& row : sample_) {
    const std::string outer = text_at(row, whole), inner = text_at(row, part);
    if (is_blank(outer) || is_blank(inner)) continue;
    ++found.both;
    found.within += outer.find(inner) != std::string::npos;
    found.part_bytes += int64_t(inner.size());
  }
  return found;
}

bool NamedColumns::is_always_within(const std::string& part, const std::string& whole) const {
  constexpr int64_t kLongEnough = 16;  // bytes, on average
  const auto found = overlap(whole, part);
  return found.both > 0 && found.within == found.both &&
         found.part_bytes >= kLongEnough * found.both;
}

bool NamedColumns::is_filled_template(const std::string& column,
                                      const std::vector<std::string>& parts) const {
  constexpr size_t kRowsPerTemplate = 4;
  std::set<std::string> templates;
  size_t rows = 0;
  for (const Json& row : sample_) {
    std::string text = text_at(row, column);
    if (is_blank(text)) continue;
    ++rows;
    for (const auto& part : parts) remove_text(text, text_at(row, part));
    templates.insert(without_space(std::move(text)));
  }
  return rows > 0 && rows >= kRowsPerTemplate * templates.size();
}

std::string NamedColumns::names() const {
  return fmt::format("{}", fmt::join(schema_.field_names(), ", "));
}

}  // namespace lorry::data
