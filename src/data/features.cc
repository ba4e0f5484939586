// Arrow schemas as the `features` that `datasets` keeps in dataset_info.json.
#include <arrow/extension/json.h>
#include <arrow/type.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "data/shard.h"

namespace lorry::data {
namespace {

const char* unit_name(arrow::TimeUnit::type unit) {
  switch (unit) {
    case arrow::TimeUnit::SECOND:
      return "s";
    case arrow::TimeUnit::MILLI:
      return "ms";
    case arrow::TimeUnit::MICRO:
      return "us";
    case arrow::TimeUnit::NANO:
      return "ns";
  }
  return "s";
}

/// As `_arrow_to_datasets_dtype` of datasets names it.
std::string dtype_name(const arrow::DataType& type) {
  switch (type.id()) {
    case arrow::Type::HALF_FLOAT:
      return "float16";
    case arrow::Type::FLOAT:
      return "float32";
    case arrow::Type::DOUBLE:
      return "float64";
    case arrow::Type::STRING:
      return "string";
    case arrow::Type::LARGE_STRING:
      return "large_string";
    case arrow::Type::DATE32:
      return "date32";
    case arrow::Type::DATE64:
      return "date64";
    case arrow::Type::TIMESTAMP: {
      const auto& t = static_cast<const arrow::TimestampType&>(type);
      if (t.timezone().empty()) return fmt::format("timestamp[{}]", unit_name(t.unit()));
      return fmt::format("timestamp[{}, tz={}]", unit_name(t.unit()), t.timezone());
    }
    case arrow::Type::TIME32:
    case arrow::Type::TIME64:
    case arrow::Type::DURATION:
    case arrow::Type::DECIMAL128:
    case arrow::Type::DECIMAL256:
      return type.ToString();
    case arrow::Type::FIXED_SIZE_BINARY:
      return fmt::format("fixed_size_binary[{}]",
                         static_cast<const arrow::FixedSizeBinaryType&>(type).byte_width());
    case arrow::Type::DICTIONARY:
      return dtype_name(*static_cast<const arrow::DictionaryType&>(type).value_type());
    default:
      return type.name();  // null, bool, int8 .. uint64, binary, large_binary
  }
}

Json feature(const arrow::DataType& type);

Json list_feature(const arrow::DataType& item, const char* kind, int length) {
  Json json;
  json["feature"] = feature(item);
  if (length >= 0) json["length"] = length;
  json["_type"] = kind;
  return json;
}

Json feature(const arrow::DataType& type) {
  switch (type.id()) {
    case arrow::Type::STRUCT: {
      Json json = Json::object();
      for (const auto& field : type.fields()) json[field->name()] = feature(*field->type());
      return json;
    }
    case arrow::Type::LIST:
    case arrow::Type::MAP:
      return list_feature(*type.field(0)->type(), "List", -1);
    case arrow::Type::LARGE_LIST:
      return list_feature(*type.field(0)->type(), "LargeList", -1);
    case arrow::Type::FIXED_SIZE_LIST:
      return list_feature(*type.field(0)->type(), "List",
                          static_cast<const arrow::FixedSizeListType&>(type).list_size());
    case arrow::Type::EXTENSION: {
      const auto& extension = static_cast<const arrow::ExtensionType&>(type);
      if (extension.extension_name() == "arrow.json") return Json{{"_type", "Json"}};
      return feature(*extension.storage_type());
    }
    default:
      return Json{{"dtype", dtype_name(type)}, {"_type", "Value"}};
  }
}

}  // namespace

Json features_from_schema(const arrow::Schema& schema) {
  Json json = Json::object();
  for (const auto& field : schema.fields()) json[field->name()] = feature(*field->type());
  return json;
}

}  // namespace lorry::data
