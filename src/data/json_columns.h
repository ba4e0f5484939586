// JSON values into Arrow arrays of the types that json_types.h found, learning the types of what
// passes at the same time.
#pragma once

#include <arrow/buffer_builder.h>
#include <arrow/type_fwd.h>
#include <simdjson.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/json_types.h"

namespace lorry::data {

/// What became of a value.
enum class Appended : uint8_t {
  kYes,
  kUnfit,  ///< the type does not hold it; the column is of no more use
  kTwice,  ///< an object names a key twice; the column is of no more use
  kFull,   ///< more text or items than a column can hold
};

/// One column being built, with its children. Not thread-safe.
class JsonColumn {
 public:
  explicit JsonColumn(const std::shared_ptr<arrow::DataType>& type);
  ~JsonColumn();
  JsonColumn(JsonColumn&&) noexcept;
  JsonColumn& operator=(JsonColumn&&) noexcept;

  Appended append(simdjson::dom::element value);
  void append_null();
  /// For struct columns: the object's keys, null for those that are missing.
  Appended append_object(simdjson::dom::object object) { return take(object, false); }
  /// For the struct column of rows that are bare strings.
  Appended append_string_row(std::string_view text);
  int64_t length() const { return length_; }
  /// The types of the values that were appended. Before `finish`.
  JsonTypes seen() const;
  arrow::Result<std::shared_ptr<arrow::ArrayData>> finish();

 private:
  enum class Kind : uint8_t { kNull, kBool, kInteger, kDouble, kString, kJson, kList, kStruct };
  Appended mark_valid();
  Appended append_text(std::string_view text);
  Appended append_double(simdjson::dom::element value);
  Appended append_list(simdjson::dom::array items);
  void append_missing();
  Appended take(simdjson::dom::object object, bool all_keys);

  std::shared_ptr<arrow::DataType> type_;
  Kind kind_;
  uint8_t kinds_ = 0;  ///< of the values, as JsonTypes has them
  int64_t length_ = 0;
  int64_t nulls_ = 0;
  int64_t missing_ = 0;  ///< of the nulls, those for a key that was not there
  arrow::Status failed_;
  arrow::TypedBufferBuilder<bool> valid_;  ///< begun with the first null
  arrow::TypedBufferBuilder<bool> bools_;
  arrow::TypedBufferBuilder<int64_t> integers_;
  arrow::TypedBufferBuilder<double> doubles_;
  arrow::TypedBufferBuilder<int32_t> offsets_;
  arrow::BufferBuilder text_;
  JsonNames names_;
  std::vector<JsonColumn> children_;
  std::vector<size_t> order_;  ///< children in the order in which their keys were first met
};

}  // namespace lorry::data
