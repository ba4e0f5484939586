// JSON values into Arrow arrays of the types that json_types.h found.
#pragma once

#include <arrow/buffer_builder.h>
#include <arrow/type_fwd.h>
#include <simdjson.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace lorry::data {

/// One column being built, with its children. Values must fit the type; where they do not (they
/// were not seen by the first pass) `append` says so. Not thread-safe.
class JsonColumn {
 public:
  explicit JsonColumn(const std::shared_ptr<arrow::DataType>& type);
  ~JsonColumn();
  JsonColumn(JsonColumn&&) noexcept;

  arrow::Status append(simdjson::dom::element value);
  arrow::Status append_null();
  /// For struct columns: the object's keys, null for those that are missing.
  arrow::Status append_object(simdjson::dom::object object);
  int64_t length() const { return length_; }
  arrow::Result<std::shared_ptr<arrow::ArrayData>> finish();

 private:
  enum class Kind { kNull, kBool, kInteger, kDouble, kString, kJson, kList, kStruct };
  arrow::Status mark_valid();
  arrow::Status append_text(std::string_view text);

  std::shared_ptr<arrow::DataType> type_;
  Kind kind_;
  int64_t length_ = 0;
  int64_t nulls_ = 0;
  arrow::TypedBufferBuilder<bool> valid_;  ///< begun with the first null
  arrow::TypedBufferBuilder<bool> bools_;
  arrow::TypedBufferBuilder<int64_t> integers_;
  arrow::TypedBufferBuilder<double> doubles_;
  arrow::TypedBufferBuilder<int32_t> offsets_;
  arrow::BufferBuilder text_;
  std::vector<std::string> names_;
  std::vector<JsonColumn> children_;
};

}  // namespace lorry::data
