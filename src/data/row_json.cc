// One row of a record batch as a JSON value.
#include <arrow/array.h>
#include <arrow/array/util.h>
#include <arrow/extension_type.h>
#include <arrow/record_batch.h>
#include <arrow/scalar.h>
#include <arrow/type_traits.h>
#include <arrow/util/float16.h>
#include <simdjson.h>  // validate_utf8

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "data/row_value.h"
#include "data/shard.h"

namespace lorry::data {
namespace {

template <typename ListArray>
Json list_to_json(const arrow::Array& array, int64_t i) {
  const auto& list = static_cast<const ListArray&>(array);
  Json json = Json::array();
  const int64_t begin = list.value_offset(i);
  for (int64_t k = 0, n = list.value_length(i); k < n; ++k) {
    json.push_back(value_to_json(*list.values(), begin + k));
  }
  return json;
}

/// Maps with text keys are objects; of keys that stand twice the last one counts, as in a dict.
Json map_to_json(const arrow::MapArray& array, int64_t i) {
  if (!arrow::is_base_binary_like(array.map_type()->key_type()->id())) {
    return list_to_json<arrow::ListArray>(array, i);
  }
  Json json = Json::object();
  const int64_t begin = array.value_offset(i);
  for (int64_t k = begin; k < begin + array.value_length(i); ++k) {
    const Json key = value_to_json(*array.keys(), k);
    if (key.is_string()) json[key.get<std::string>()] = value_to_json(*array.items(), k);
  }
  return json;
}

Json struct_to_json(const arrow::StructArray& array, int64_t i) {
  Json json = Json::object();
  for (int f = 0; f < array.num_fields(); ++f) {
    json[array.struct_type()->field(f)->name()] = value_to_json(*array.field(f), i);
  }
  return json;
}

Json extension_to_json(const arrow::ExtensionArray& array, int64_t i) {
  Json stored = value_to_json(*array.storage(), i);
  if (array.extension_type()->extension_name() != "arrow.json" || !stored.is_string()) {
    return stored;
  }
  const auto& text = stored.get_ref<const std::string&>();
  auto parsed = parse_json(text, "");
  return parsed.ok() ? *std::move(parsed) : stored;
}

template <typename ArrayType>
auto number(const arrow::Array& array, int64_t i) {
  return static_cast<const ArrayType&>(array).Value(i);
}

template <typename ArrayType>
Json text(const arrow::Array& array, int64_t i) {
  return std::string(static_cast<const ArrayType&>(array).GetView(i));
}

/// Bytes are text where they can be: what is no UTF-8 must not end up in a conversation.
template <typename ArrayType>
Json bytes(const arrow::Array& array, int64_t i) {
  const auto view = static_cast<const ArrayType&>(array).GetView(i);
  if (simdjson::validate_utf8(view.data(), view.size())) return std::string(view);
  return Json::binary({view.begin(), view.end()});
}

/// The double that is written like the float: 0.1, not 0.10000000149011612.
double as_written(float value) {
  char text[32];
  const auto end = std::to_chars(std::begin(text), std::end(text), value).ptr;
  double same = value;  // stays where `text` is no number: nan, inf
  if (std::isfinite(value)) std::from_chars(text, end, same);
  return same;
}

/// A value of the types that have no array of plain values: the array of that value alone.
Json scalar_to_json(const arrow::Array& array, int64_t i) {
  auto scalar = array.GetScalar(i);
  if (!scalar.ok()) return nullptr;
  if ((*scalar)->type->id() != arrow::Type::RUN_END_ENCODED) return (*scalar)->ToString();
  const auto& run = static_cast<const arrow::RunEndEncodedScalar&>(**scalar);
  const auto value = arrow::MakeArrayFromScalar(*run.value, 1);
  return value.ok() ? value_to_json(**value, 0) : Json(nullptr);
}

}  // namespace

Json value_to_json(const arrow::Array& array, int64_t i) {
  if (array.IsNull(i)) return nullptr;
  switch (array.type_id()) {
    case arrow::Type::NA:
      return nullptr;
    case arrow::Type::BOOL:
      return number<arrow::BooleanArray>(array, i);
    case arrow::Type::INT8:
      return number<arrow::Int8Array>(array, i);
    case arrow::Type::INT16:
      return number<arrow::Int16Array>(array, i);
    case arrow::Type::INT32:
      return number<arrow::Int32Array>(array, i);
    case arrow::Type::INT64:
      return number<arrow::Int64Array>(array, i);
    case arrow::Type::UINT8:
      return number<arrow::UInt8Array>(array, i);
    case arrow::Type::UINT16:
      return number<arrow::UInt16Array>(array, i);
    case arrow::Type::UINT32:
      return number<arrow::UInt32Array>(array, i);
    case arrow::Type::UINT64:
      return number<arrow::UInt64Array>(array, i);
    case arrow::Type::HALF_FLOAT:
      return arrow::util::Float16::FromBits(number<arrow::HalfFloatArray>(array, i)).ToDouble();
    case arrow::Type::FLOAT:
      return as_written(number<arrow::FloatArray>(array, i));
    case arrow::Type::DOUBLE:
      return number<arrow::DoubleArray>(array, i);
    case arrow::Type::STRING:
      return text<arrow::BinaryArray>(array, i);
    case arrow::Type::LARGE_STRING:
      return text<arrow::LargeBinaryArray>(array, i);
    case arrow::Type::STRING_VIEW:
      return text<arrow::BinaryViewArray>(array, i);
    case arrow::Type::BINARY:
      return bytes<arrow::BinaryArray>(array, i);
    case arrow::Type::LARGE_BINARY:
      return bytes<arrow::LargeBinaryArray>(array, i);
    case arrow::Type::BINARY_VIEW:
      return bytes<arrow::BinaryViewArray>(array, i);
    case arrow::Type::FIXED_SIZE_BINARY:
      return bytes<arrow::FixedSizeBinaryArray>(array, i);
    case arrow::Type::LIST:
      return list_to_json<arrow::ListArray>(array, i);
    case arrow::Type::LARGE_LIST:
      return list_to_json<arrow::LargeListArray>(array, i);
    case arrow::Type::LIST_VIEW:
      return list_to_json<arrow::ListViewArray>(array, i);
    case arrow::Type::LARGE_LIST_VIEW:
      return list_to_json<arrow::LargeListViewArray>(array, i);
    case arrow::Type::MAP:
      return map_to_json(static_cast<const arrow::MapArray&>(array), i);
    case arrow::Type::FIXED_SIZE_LIST:
      return list_to_json<arrow::FixedSizeListArray>(array, i);
    case arrow::Type::STRUCT:
      return struct_to_json(static_cast<const arrow::StructArray&>(array), i);
    case arrow::Type::EXTENSION:
      return extension_to_json(static_cast<const arrow::ExtensionArray&>(array), i);
    case arrow::Type::DICTIONARY: {
      const auto& dictionary = static_cast<const arrow::DictionaryArray&>(array);
      return value_to_json(*dictionary.dictionary(), dictionary.GetValueIndex(i));
    }
    default:  // dates, times, decimals: as Arrow prints them
      return scalar_to_json(array, i);
  }
}

Json row_to_json(const arrow::RecordBatch& batch, int64_t row) {
  Json json = Json::object();
  for (int c = 0; c < batch.num_columns(); ++c) {
    json[batch.schema()->field(c)->name()] = value_to_json(*batch.column(c), row);
  }
  return json;
}

}  // namespace lorry::data
