#include "data/json_types.h"

#include <arrow/extension/json.h>
#include <arrow/type.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/json_kinds.h"

namespace lorry::data {
namespace {

constexpr size_t kManyNames = 24;

bool object_keys_once(simdjson::dom::object object) {
  std::vector<std::string_view> keys;
  for (const auto [key, value] : object) {
    if (!names_keys_once(value)) return false;
    keys.push_back(key);
  }
  if (keys.size() < 8) {
    for (size_t i = 1; i < keys.size(); ++i) {
      if (std::find(keys.begin(), keys.begin() + std::ptrdiff_t(i), keys[i]) !=
          keys.begin() + std::ptrdiff_t(i)) {
        return false;
      }
    }
    return true;
  }
  std::sort(keys.begin(), keys.end());
  return std::adjacent_find(keys.begin(), keys.end()) == keys.end();
}

}  // namespace

size_t JsonNames::add(std::string_view name) {
  names_.emplace_back(name);
  if (names_.size() == kManyNames) {
    for (size_t i = 0; i < names_.size(); ++i) index_.emplace(names_[i], i);
  } else if (names_.size() > kManyNames) {
    index_.emplace(names_.back(), names_.size() - 1);
  }
  return names_.size() - 1;
}

size_t JsonNames::search(std::string_view name) const {
  if (names_.size() < kManyNames) {
    for (size_t i = 0; i < names_.size(); ++i) {
      if (names_[i] == name) return i;
    }
    return kNone;
  }
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? kNone : found->second;
}

bool names_keys_once(simdjson::dom::element value) {
  if (value.is_object()) return object_keys_once(value.get_object().value_unsafe());
  if (!value.is_array()) return true;
  const simdjson::dom::array items = value.get_array().value_unsafe();
  return std::all_of(items.begin(), items.end(), [](auto item) { return names_keys_once(item); });
}

JsonTypes& JsonTypes::field(std::string_view name, size_t hint) {
  size_t at = names_.find(name, hint);
  if (at == JsonNames::kNone) {
    at = names_.add(name);
    fields_.emplace_back();
  }
  return fields_[at];
}

bool JsonTypes::add_object(simdjson::dom::object object) {
  bool once = true;
  size_t hint = 0;
  for (const auto [key, value] : object) {
    JsonTypes& known = field(key, hint++);
    if (known.last_object_ == objects_) {
      once = false;
      continue;
    }
    known.last_object_ = objects_;
    once &= known.add(value);
  }
  ++objects_;
  return once;
}

bool JsonTypes::add(simdjson::dom::element value) {
  using simdjson::dom::element_type;
  ++seen_;
  if (json_) return names_keys_once(value);
  switch (value.type()) {
    case element_type::NULL_VALUE:
      return true;
    case element_type::BOOL:
      kinds_ |= kJsonBool;
      return true;
    case element_type::INT64:
      kinds_ |= kJsonInteger;
      return true;
    case element_type::UINT64:  // beyond int64: as a double, like Arrow reads it
    case element_type::DOUBLE:
      kinds_ |= kJsonDouble;
      return true;
    case element_type::STRING:
      kinds_ |= kJsonString;
      return true;
    case element_type::ARRAY: {
      kinds_ |= kJsonList;
      if (!item_) item_ = std::make_unique<JsonTypes>();
      bool once = true;
      const simdjson::dom::array items = value.get_array().value_unsafe();
      for (const auto item : items) once &= item_->add(item);
      return once;
    }
    case element_type::OBJECT:
      kinds_ |= kJsonObject;
      return add_object(value.get_object().value_unsafe());
  }
  return true;
}

void JsonTypes::merge(const JsonTypes& other) {
  kinds_ |= other.kinds_;
  json_ |= other.json_;
  seen_ += other.seen_;
  objects_ += other.objects_;
  size_t hint = 0;
  for (size_t i = 0; i < other.fields_.size(); ++i) {
    JsonTypes& mine = field(other.names_[i], hint++);
    mine.merge(other.fields_[i]);
    mine.collapse();
  }
  if (other.item_) {
    if (!item_) item_ = std::make_unique<JsonTypes>();
    item_->merge(*other.item_);
    item_->collapse();
  }
}

bool JsonTypes::is_json() const {
  if (json_) return true;
  switch (kinds_) {
    case 0:
    case kJsonBool:
    case kJsonInteger:
    case kJsonDouble:
    case kJsonInteger | kJsonDouble:
    case kJsonString:
    case kJsonList:
      return false;
    case kJsonObject:
      return fields_.empty() || std::any_of(fields_.begin(), fields_.end(), [&](const auto& field) {
               return field.seen_ != objects_;
             });
    default:
      return true;
  }
}

void JsonTypes::collapse() {
  if (!is_json()) return;
  json_ = true;
  names_ = JsonNames();
  fields_.clear();
  item_.reset();
}

std::shared_ptr<arrow::DataType> JsonTypes::arrow_type() const {
  if (is_json()) return arrow::extension::json();
  switch (kinds_) {
    case 0:
      return arrow::null();
    case kJsonBool:
      return arrow::boolean();
    case kJsonInteger:
      return arrow::int64();
    case kJsonString:
      return arrow::utf8();
    case kJsonList:
      return arrow::list(item_->arrow_type());
    case kJsonObject:
      return arrow::struct_(row_fields());
    default:
      return arrow::float64();
  }
}

arrow::FieldVector JsonTypes::row_fields() const {
  arrow::FieldVector fields;
  for (size_t i = 0; i < fields_.size(); ++i) {
    fields.push_back(arrow::field(names_[i], fields_[i].arrow_type()));
  }
  return fields;
}

Json JsonTypes::to_json() const {
  Json json{{"kinds", kinds_}, {"json", json_}, {"seen", seen_}, {"objects", objects_}};
  Json fields = Json::array();
  for (size_t i = 0; i < fields_.size(); ++i) {
    fields.push_back(Json::array({names_[i], fields_[i].to_json()}));
  }
  json["fields"] = std::move(fields);
  if (item_) json["item"] = item_->to_json();
  return json;
}

Result<JsonTypes> JsonTypes::from_json(const Json& json) {
  try {
    JsonTypes types;
    types.kinds_ = json.at("kinds").get<uint8_t>();
    types.json_ = json.at("json").get<bool>();
    types.seen_ = json.at("seen").get<int64_t>();
    types.objects_ = json.at("objects").get<int64_t>();
    for (const auto& field : json.at("fields")) {
      types.names_.add(field.at(0).get<std::string>());
      LORRY_ASSIGN(auto inner, from_json(field.at(1)));
      types.fields_.push_back(std::move(inner));
    }
    if (json.contains("item")) {
      LORRY_ASSIGN(auto item, from_json(json.at("item")));
      types.item_ = std::make_unique<JsonTypes>(std::move(item));
    }
    return types;
  } catch (const nlohmann::json::exception& e) {
    return corrupt_data(std::string("not the types of rows: ") + e.what());
  }
}

}  // namespace lorry::data
