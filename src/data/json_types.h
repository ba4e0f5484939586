// The types of JSON values, learnt row by row and merged into one Arrow schema.
//
// As `datasets` (5.x) reads JSON: missing keys of a row are null; integers and other numbers give
// double; empty lists and nulls take the type of the rest. What has no single Arrow type - numbers
// beside strings, objects with different keys, objects without keys - stays JSON (arrow.json, the
// `Json` feature), so every row comes out as it went in. Unlike there, strings that look like dates
// stay strings.
#pragma once

#include <arrow/type_fwd.h>
#include <simdjson.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace lorry::data {

class JsonTypes {
 public:
  /// Takes in one value. Returns false if an object names a key twice (the value is half taken in).
  bool add(simdjson::dom::element value);
  /// Takes in all that `other` saw, which came later.
  void merge(const JsonTypes& other);
  std::shared_ptr<arrow::DataType> arrow_type() const;
  /// The fields of a row: objects with missing keys stay a struct here.
  arrow::FieldVector row_fields() const;
  int64_t rows() const { return objects_; }

 private:
  struct Field;
  bool add_object(simdjson::dom::object object);
  Field& field(std::string_view name, size_t hint);

  uint8_t kinds_ = 0;
  int64_t seen_ = 0;     ///< values taken in, null too
  int64_t objects_ = 0;  ///< of these, objects
  std::vector<Field> fields_;
  std::unique_ptr<JsonTypes> item_;
};

struct JsonTypes::Field {
  std::string name;
  JsonTypes types;
  int64_t last_object = -1;
};

}  // namespace lorry::data
