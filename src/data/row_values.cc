#include "data/row_values.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/non_finite.h"

namespace lorry::data {

const Json& field(const Json& object, const std::string& key) {
  static const Json kNull;
  if (key.empty() || !object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

void remove_nulls(Json& value) {
  if (value.is_object()) {
    Json kept = Json::object();
    for (auto& [key, inner] : value.items()) {
      if (inner.is_null()) continue;
      remove_nulls(inner);
      kept[key] = std::move(inner);
    }
    value = std::move(kept);
  } else if (value.is_array()) {
    for (auto& inner : value) remove_nulls(inner);
  }
}

bool is_columns(const Json& value) {
  if (!value.is_object()) return false;
  bool has_list = false;
  for (const auto& [key, column] : value.items()) {
    if (!column.is_null() && !column.is_array() && !is_columns(column)) return false;
    has_list |= !column.is_null();
  }
  return has_list;
}

Result<Json> rows_of_columns(Json value) {
  if (!is_columns(value)) return value;
  Json rows = Json::array();
  std::string first;
  for (auto& [key, column] : value.items()) {
    if (column.is_null()) continue;
    LORRY_ASSIGN(column, rows_of_columns(std::move(column)));
    if (first.empty()) {
      first = key;
      rows.get_ref<Json::array_t&>().resize(column.size(), Json::object());
    }
    if (column.size() != rows.size()) {
      return invalid_input(
          fmt::format("{} has {} values, but {} has {}", first, rows.size(), key, column.size()));
    }
    for (size_t i = 0; i < rows.size(); ++i) rows[i][key] = std::move(column[i]);
  }
  return rows;
}

std::optional<std::vector<std::string>> answer_texts(const Json& value) {
  std::vector<std::string> texts;
  const auto add = [&](const Json& text) {
    if (text.is_string()) texts.push_back(text.get<std::string>());
    return text.is_string();
  };
  const Json& column = field(value, "text");
  if (column.is_array() && field(value, "answer_start").is_array()) {
    if (!std::all_of(column.begin(), column.end(), add)) return std::nullopt;
    return texts;
  }
  const auto add_answer = [&](const Json& answer) {
    return !field(answer, "answer_start").is_null() && add(field(answer, "text"));
  };
  const bool is_list = value.is_array() && !value.empty();
  if (!is_list || !std::all_of(value.begin(), value.end(), add_answer)) return std::nullopt;
  return texts;
}

std::string described(const Json& value) {
  if (value.is_string()) return "text";
  if (!value.is_object()) return value.is_null() ? "null" : value.type_name();
  std::vector<std::string> keys;
  for (const auto& [key, inner] : value.items()) keys.push_back(key);
  return fmt::format("an object with the keys {}", fmt::join(keys, ", "));
}

Json parsed(const Json& value) {
  if (!value.is_string()) return value;
  const auto& text = value.get_ref<const std::string&>();
  auto json = parse_json(text, "");
  if (json.ok()) return *std::move(json);
  const auto finite = without_non_finite_numbers(text);
  if (!finite) return Json(Json::value_t::discarded);
  json = parse_json(*finite, "");
  return json.ok() ? *std::move(json) : Json(Json::value_t::discarded);
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\n\v\f\r") == std::string_view::npos;
}

}  // namespace lorry::data
