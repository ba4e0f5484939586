#include "data/json_types.h"

#include <arrow/extension/json.h>
#include <arrow/type.h>

namespace lorry::data {
namespace {

constexpr uint8_t kBool = 1;
constexpr uint8_t kInteger = 2;
constexpr uint8_t kDouble = 4;
constexpr uint8_t kString = 8;
constexpr uint8_t kList = 16;
constexpr uint8_t kObject = 32;

}  // namespace

JsonTypes::Field& JsonTypes::field(std::string_view name, size_t hint) {
  // Rows mostly name their keys in one order.
  if (hint < fields_.size() && fields_[hint].name == name) return fields_[hint];
  for (auto& field : fields_) {
    if (field.name == name) return field;
  }
  fields_.emplace_back();
  fields_.back().name = name;
  return fields_.back();
}

bool JsonTypes::add_object(simdjson::dom::object object) {
  bool once = true;
  size_t hint = 0;
  for (const auto [key, value] : object) {
    Field& known = field(key, hint++);
    once &= known.last_object != objects_;
    known.last_object = objects_;
    once &= known.types.add(value);
  }
  ++objects_;
  return once;
}

bool JsonTypes::add(simdjson::dom::element value) {
  using simdjson::dom::element_type;
  ++seen_;
  switch (value.type()) {
    case element_type::NULL_VALUE:
      return true;
    case element_type::BOOL:
      kinds_ |= kBool;
      return true;
    case element_type::INT64:
      kinds_ |= kInteger;
      return true;
    case element_type::UINT64:  // beyond int64: as a double, like Arrow reads it
    case element_type::DOUBLE:
      kinds_ |= kDouble;
      return true;
    case element_type::STRING:
      kinds_ |= kString;
      return true;
    case element_type::ARRAY: {
      kinds_ |= kList;
      if (!item_) item_ = std::make_unique<JsonTypes>();
      bool once = true;
      const simdjson::dom::array items = value.get_array().value_unsafe();
      for (const auto item : items) once &= item_->add(item);
      return once;
    }
    case element_type::OBJECT:
      kinds_ |= kObject;
      return add_object(value.get_object().value_unsafe());
  }
  return true;
}

void JsonTypes::merge(const JsonTypes& other) {
  kinds_ |= other.kinds_;
  seen_ += other.seen_;
  objects_ += other.objects_;
  size_t hint = 0;
  for (const auto& theirs : other.fields_) field(theirs.name, hint++).types.merge(theirs.types);
  if (other.item_) {
    if (!item_) item_ = std::make_unique<JsonTypes>();
    item_->merge(*other.item_);
  }
}

std::shared_ptr<arrow::DataType> JsonTypes::arrow_type() const {
  switch (kinds_) {
    case 0:
      return arrow::null();
    case kBool:
      return arrow::boolean();
    case kInteger:
      return arrow::int64();
    case kDouble:
    case kInteger | kDouble:
      return arrow::float64();
    case kString:
      return arrow::utf8();
    case kList:
      return arrow::list(item_->arrow_type());
    case kObject:
      break;
    default:
      return arrow::extension::json();
  }
  bool same_keys = !fields_.empty();
  for (const auto& field : fields_) same_keys &= field.types.seen_ == objects_;
  if (!same_keys) return arrow::extension::json();
  return arrow::struct_(row_fields());
}

arrow::FieldVector JsonTypes::row_fields() const {
  arrow::FieldVector fields;
  for (const auto& field : fields_) {
    fields.push_back(arrow::field(field.name, field.types.arrow_type()));
  }
  return fields;
}

}  // namespace lorry::data
