// The types of JSON values, learnt row by row and merged into one Arrow schema.
//
// As `datasets` (5.x) reads JSON: missing keys of a row are null; integers and other numbers give
// double; empty lists and nulls take the type of the rest. What has no single Arrow type - numbers
// beside strings, objects with different keys, objects without keys - stays JSON (arrow.json, the
// `Json` feature), so every row comes out as it went in. Unlike there, strings that look like dates
// stay strings.
//
// Types only widen: what is JSON or double after some rows is so after all of them.
#pragma once

#include <arrow/type_fwd.h>
#include <simdjson.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/json.h"

namespace lorry::data {

class JsonColumn;

/// Finds a name's place among many; the first guess is right for rows that agree on their order.
class JsonNames {
 public:
  static constexpr size_t kNone = size_t(-1);
  size_t find(std::string_view name, size_t hint) const {
    if (hint < names_.size() && names_[hint] == name) return hint;
    return search(name);
  }
  size_t add(std::string_view name);
  size_t size() const { return names_.size(); }
  const std::string& operator[](size_t at) const { return names_[at]; }

 private:
  size_t search(std::string_view name) const;
  std::vector<std::string> names_;
  std::unordered_map<std::string, size_t> index_;  ///< once there are many
};

/// Whether no object in `value` names a key twice.
bool names_keys_once(simdjson::dom::element value);

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

  /// For an interrupted import to go on; anything else gives an error.
  Json to_json() const;
  static Result<JsonTypes> from_json(const Json& json);

 private:
  friend class JsonColumn;  // which sees the same values while it takes them in
  bool add_object(simdjson::dom::object object);
  JsonTypes& field(std::string_view name, size_t hint);
  bool is_json() const;
  /// Forgets what is inside of what stays JSON, whatever comes: a map of millions of keys is one.
  void collapse();

  uint8_t kinds_ = 0;
  bool json_ = false;         ///< stays JSON; nothing else counts
  int64_t seen_ = 0;          ///< values taken in, null too
  int64_t objects_ = 0;       ///< of these, objects
  int64_t last_object_ = -1;  ///< of the object around, in which this was seen last
  JsonNames names_;
  std::vector<JsonTypes> fields_;
  std::unique_ptr<JsonTypes> item_;
};

}  // namespace lorry::data
