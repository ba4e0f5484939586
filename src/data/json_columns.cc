#include "data/json_columns.h"

#include <arrow/array/data.h>
#include <arrow/extension_type.h>
#include <arrow/type.h>

#include <limits>

#include "data/json_kinds.h"

namespace lorry::data {
namespace {

using simdjson::dom::element_type;

}  // namespace

JsonColumn::~JsonColumn() = default;
JsonColumn::JsonColumn(JsonColumn&&) noexcept = default;
JsonColumn& JsonColumn::operator=(JsonColumn&&) noexcept = default;

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
        names_.add(field->name());
        children_.emplace_back(field->type());
      }
      break;
    default:
      kind_ = Kind::kNull;
  }
}

Appended JsonColumn::mark_valid() {
  ++length_;
  if (nulls_ > 0) failed_ &= valid_.Append(true);
  return Appended::kYes;
}

void JsonColumn::append_null() {
  if (nulls_++ == 0) failed_ &= valid_.Append(length_, true);
  failed_ &= valid_.Append(false);
  ++length_;
  switch (kind_) {
    case Kind::kNull:
      return;
    case Kind::kBool:
      failed_ &= bools_.Append(false);
      return;
    case Kind::kInteger:
      failed_ &= integers_.Append(0);
      return;
    case Kind::kDouble:
      failed_ &= doubles_.Append(0);
      return;
    case Kind::kString:
    case Kind::kJson:
      failed_ &= offsets_.Append(int32_t(text_.length()));
      return;
    case Kind::kList:
      failed_ &= offsets_.Append(int32_t(children_[0].length()));
      return;
    case Kind::kStruct:
      for (auto& child : children_) child.append_missing();
  }
}

void JsonColumn::append_missing() {
  ++missing_;
  append_null();
}

Appended JsonColumn::append_text(std::string_view text) {
  if (text_.length() + int64_t(text.size()) > std::numeric_limits<int32_t>::max()) {
    return Appended::kFull;
  }
  failed_ &= offsets_.Append(int32_t(text_.length()));
  failed_ &= text_.Append(text);
  return mark_valid();
}

Appended JsonColumn::take(simdjson::dom::object object, bool all_keys) {
  kinds_ |= kJsonObject;
  size_t next = 0, met = 0;
  for (const auto [key, value] : object) {
    const size_t at = names_.find(key, next);
    if (at == JsonNames::kNone) return Appended::kUnfit;
    next = at + 1;
    JsonColumn& child = children_[at];
    if (child.length_ > length_) return Appended::kTwice;
    if (child.length_ == child.missing_) order_.push_back(at);
    const Appended done = child.append(value);
    if (done != Appended::kYes) return done;
    ++met;
  }
  if (met < children_.size()) {
    if (all_keys) return Appended::kUnfit;
    for (auto& child : children_) {
      if (child.length_ == length_) child.append_missing();
    }
  }
  return mark_valid();
}

Appended JsonColumn::append_string_row(std::string_view text) {
  if (children_.size() != 1 || children_[0].kind_ != Kind::kString) return Appended::kUnfit;
  const Appended done = children_[0].append_text(text);
  return done == Appended::kYes ? mark_valid() : done;
}

Appended JsonColumn::append_double(simdjson::dom::element value) {
  const element_type is = value.type();
  if (is == element_type::INT64) {
    kinds_ |= kJsonInteger;
  } else if (is == element_type::DOUBLE || is == element_type::UINT64) {
    kinds_ |= kJsonDouble;
  } else {
    return Appended::kUnfit;
  }
  failed_ &= doubles_.Append(value.get_double().value_unsafe());
  return mark_valid();
}

Appended JsonColumn::append_list(simdjson::dom::array items) {
  kinds_ |= kJsonList;
  JsonColumn& child = children_[0];
  failed_ &= offsets_.Append(int32_t(child.length()));
  for (const auto item : items) {
    const Appended done = child.append(item);
    if (done != Appended::kYes) return done;
  }
  if (child.length() > std::numeric_limits<int32_t>::max()) return Appended::kFull;
  return mark_valid();
}

Appended JsonColumn::append(simdjson::dom::element value) {
  const element_type is = value.type();
  if (is == element_type::NULL_VALUE) {
    append_null();
    return Appended::kYes;
  }
  switch (kind_) {
    case Kind::kNull:
      return Appended::kUnfit;
    case Kind::kBool:
      if (is != element_type::BOOL) return Appended::kUnfit;
      kinds_ |= kJsonBool;
      failed_ &= bools_.Append(value.get_bool().value_unsafe());
      return mark_valid();
    case Kind::kInteger:
      if (is != element_type::INT64) return Appended::kUnfit;
      kinds_ |= kJsonInteger;
      failed_ &= integers_.Append(value.get_int64().value_unsafe());
      return mark_valid();
    case Kind::kDouble:
      return append_double(value);
    case Kind::kString:
      if (is != element_type::STRING) return Appended::kUnfit;
      kinds_ |= kJsonString;
      return append_text(value.get_string().value_unsafe());
    case Kind::kJson:
      if (!names_keys_once(value)) return Appended::kTwice;
      return append_text(simdjson::minify(value));
    case Kind::kList:
      if (is != element_type::ARRAY) return Appended::kUnfit;
      return append_list(value.get_array().value_unsafe());
    case Kind::kStruct:
      if (is != element_type::OBJECT) return Appended::kUnfit;
      return take(value.get_object().value_unsafe(), true);
  }
  return Appended::kUnfit;
}

JsonTypes JsonColumn::seen() const {
  JsonTypes types;
  types.kinds_ = kinds_;
  types.json_ = kind_ == Kind::kJson;
  types.seen_ = length_ - missing_;
  if (kind_ == Kind::kStruct) {
    types.objects_ = length_ - nulls_;
    for (const size_t at : order_) {
      types.names_.add(names_[at]);
      types.fields_.push_back(children_[at].seen());
    }
  } else if (kinds_ & kJsonList) {
    types.item_ = std::make_unique<JsonTypes>(children_[0].seen());
  }
  return types;
}

arrow::Result<std::shared_ptr<arrow::ArrayData>> JsonColumn::finish() {
  ARROW_RETURN_NOT_OK(failed_);
  std::shared_ptr<arrow::Buffer> valid;
  if (nulls_ > 0 && kind_ != Kind::kNull) ARROW_RETURN_NOT_OK(valid_.Finish(&valid));
  std::vector<std::shared_ptr<arrow::Buffer>> buffers = {valid};
  std::vector<std::shared_ptr<arrow::ArrayData>> children;
  auto add = [&](auto& builder) -> arrow::Status {
    std::shared_ptr<arrow::Buffer> buffer;
    ARROW_RETURN_NOT_OK(builder.Finish(&buffer, /*shrink_to_fit=*/false));
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
