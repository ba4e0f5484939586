#include "data/json_columns.h"

#include <arrow/array/data.h>
#include <arrow/extension_type.h>
#include <arrow/type.h>
#include <fmt/format.h>

#include <limits>

namespace lorry::data {
namespace {

using simdjson::dom::element_type;

arrow::Status unfit(const arrow::DataType& type) {
  return arrow::Status::Invalid(
      fmt::format("a value is no {}; did the file change while it was read?", type.ToString()));
}

}  // namespace

JsonColumn::~JsonColumn() = default;
JsonColumn::JsonColumn(JsonColumn&&) noexcept = default;

JsonColumn::JsonColumn(const std::shared_ptr<arrow::DataType>& type) : type_(type) {
  switch (type->id()) {
    case arrow::Type::BOOL:
      kind_ = Kind::kBool;
      break;
    case arrow::Type::INT64:
      kind_ = Kind::kInteger;
      break;
    case arrow::Type::DOUBLE:
      kind_ = Kind::kDouble;
      break;
    case arrow::Type::STRING:
      kind_ = Kind::kString;
      break;
    case arrow::Type::EXTENSION:
      kind_ = Kind::kJson;
      break;
    case arrow::Type::LIST:
      kind_ = Kind::kList;
      children_.emplace_back(type->field(0)->type());
      break;
    case arrow::Type::STRUCT:
      kind_ = Kind::kStruct;
      for (const auto& field : type->fields()) {
        names_.push_back(field->name());
        children_.emplace_back(field->type());
      }
      break;
    default:
      kind_ = Kind::kNull;
  }
}

arrow::Status JsonColumn::mark_valid() {
  ++length_;
  return nulls_ > 0 ? valid_.Append(true) : arrow::Status::OK();
}

arrow::Status JsonColumn::append_null() {
  if (nulls_++ == 0) ARROW_RETURN_NOT_OK(valid_.Append(length_, true));
  ARROW_RETURN_NOT_OK(valid_.Append(false));
  ++length_;
  switch (kind_) {
    case Kind::kNull:
      return arrow::Status::OK();
    case Kind::kBool:
      return bools_.Append(false);
    case Kind::kInteger:
      return integers_.Append(0);
    case Kind::kDouble:
      return doubles_.Append(0);
    case Kind::kString:
    case Kind::kJson:
      return offsets_.Append(int32_t(text_.length()));
    case Kind::kList:
      return offsets_.Append(int32_t(children_[0].length()));
    case Kind::kStruct:
      for (auto& child : children_) ARROW_RETURN_NOT_OK(child.append_null());
  }
  return arrow::Status::OK();
}

arrow::Status JsonColumn::append_text(std::string_view text) {
  if (text_.length() + int64_t(text.size()) > std::numeric_limits<int32_t>::max()) {
    return arrow::Status::CapacityError("a row's text is too long");
  }
  ARROW_RETURN_NOT_OK(offsets_.Append(int32_t(text_.length())));
  ARROW_RETURN_NOT_OK(text_.Append(text));
  return mark_valid();
}

arrow::Status JsonColumn::append_object(simdjson::dom::object object) {
  size_t next = 0;
  for (const auto [key, value] : object) {
    size_t at = next;
    if (at >= names_.size() || names_[at] != key) {
      for (at = 0; at < names_.size() && names_[at] != key;) ++at;
      if (at == names_.size()) return unfit(*type_);
    }
    next = at + 1;
    if (children_[at].length_ > length_) return unfit(*type_);
    ARROW_RETURN_NOT_OK(children_[at].append(value));
  }
  for (auto& child : children_) {
    if (child.length_ == length_) ARROW_RETURN_NOT_OK(child.append_null());
  }
  return mark_valid();
}

arrow::Status JsonColumn::append(simdjson::dom::element value) {
  const element_type is = value.type();
  if (is == element_type::NULL_VALUE) return append_null();
  switch (kind_) {
    case Kind::kNull:
      return unfit(*type_);
    case Kind::kBool:
      if (is != element_type::BOOL) return unfit(*type_);
      ARROW_RETURN_NOT_OK(bools_.Append(value.get_bool().value_unsafe()));
      return mark_valid();
    case Kind::kInteger:
      if (is != element_type::INT64) return unfit(*type_);
      ARROW_RETURN_NOT_OK(integers_.Append(value.get_int64().value_unsafe()));
      return mark_valid();
    case Kind::kDouble: {
      if (!value.is_number()) return unfit(*type_);
      const auto number = value.get_double();
      ARROW_RETURN_NOT_OK(doubles_.Append(number.value_unsafe()));
      return mark_valid();
    }
    case Kind::kString:
      if (is != element_type::STRING) return unfit(*type_);
      return append_text(value.get_string().value_unsafe());
    case Kind::kJson:
      return append_text(simdjson::minify(value));
    case Kind::kList: {
      if (is != element_type::ARRAY) return unfit(*type_);
      ARROW_RETURN_NOT_OK(offsets_.Append(int32_t(children_[0].length())));
      const simdjson::dom::array items = value.get_array().value_unsafe();
      for (const auto item : items) {
        ARROW_RETURN_NOT_OK(children_[0].append(item));
      }
      return mark_valid();
    }
    case Kind::kStruct:
      if (is != element_type::OBJECT) return unfit(*type_);
      return append_object(value.get_object().value_unsafe());
  }
  return arrow::Status::OK();
}

arrow::Result<std::shared_ptr<arrow::ArrayData>> JsonColumn::finish() {
  std::shared_ptr<arrow::Buffer> valid;
  if (nulls_ > 0 && kind_ != Kind::kNull) ARROW_RETURN_NOT_OK(valid_.Finish(&valid));
  std::vector<std::shared_ptr<arrow::Buffer>> buffers = {valid};
  std::vector<std::shared_ptr<arrow::ArrayData>> children;
  auto add = [&](auto& builder) -> arrow::Status {
    std::shared_ptr<arrow::Buffer> buffer;
    ARROW_RETURN_NOT_OK(builder.Finish(&buffer));
    buffers.push_back(std::move(buffer));
    return arrow::Status::OK();
  };
  switch (kind_) {
    case Kind::kNull:
    case Kind::kStruct:
      break;
    case Kind::kBool:
      ARROW_RETURN_NOT_OK(add(bools_));
      break;
    case Kind::kInteger:
      ARROW_RETURN_NOT_OK(add(integers_));
      break;
    case Kind::kDouble:
      ARROW_RETURN_NOT_OK(add(doubles_));
      break;
    case Kind::kString:
    case Kind::kJson:
      ARROW_RETURN_NOT_OK(offsets_.Append(int32_t(text_.length())));
      ARROW_RETURN_NOT_OK(add(offsets_));
      ARROW_RETURN_NOT_OK(add(text_));
      break;
    case Kind::kList:
      ARROW_RETURN_NOT_OK(offsets_.Append(int32_t(children_[0].length())));
      ARROW_RETURN_NOT_OK(add(offsets_));
  }
  for (auto& child : children_) {
    ARROW_ASSIGN_OR_RAISE(auto data, child.finish());
    children.push_back(std::move(data));
  }
  const int64_t nulls = nulls_;
  return arrow::ArrayData::Make(type_, length_, std::move(buffers), std::move(children), nulls);
}

}  // namespace lorry::data
