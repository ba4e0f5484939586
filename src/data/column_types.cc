#include "data/column_types.h"

#include <arrow/extension/json.h>
#include <arrow/extension_type.h>
#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace lorry::data {
namespace {

using Type = std::shared_ptr<arrow::DataType>;

// ---- types of files as types of shards ----

Result<Type> shard_type(const Type& type, const std::string& name);

/// Nothing that a field says beside its name and type goes on: a row of another file may lack it.
Result<std::shared_ptr<arrow::Field>> shard_item(const Type& list, const std::string& name) {
  const auto& item = list->field(0);
  LORRY_ASSIGN(auto type, shard_type(item->type(), name + "[]"));
  return arrow::field(item->name(), std::move(type));
}

Result<arrow::FieldVector> shard_fields(const arrow::FieldVector& fields,
                                        const std::string& prefix) {
  std::set<std::string> names;
  arrow::FieldVector held;
  for (const auto& field : fields) {
    const std::string name = prefix + field->name();
    if (!names.insert(field->name()).second) {
      return invalid_input(fmt::format("column {} is there twice", name));
    }
    LORRY_ASSIGN(auto type, shard_type(field->type(), name));
    held.push_back(arrow::field(field->name(), std::move(type)));
  }
  return held;
}

Result<Type> shard_map(const arrow::MapType& map, const std::string& name) {
  LORRY_ASSIGN(auto key, shard_type(map.key_type(), name + "[].key"));
  if (arrow::is_base_binary_like(key->id())) return arrow::extension::json();
  LORRY_ASSIGN(auto item, shard_type(map.item_type(), name + "[].value"));
  return arrow::list(arrow::struct_({arrow::field("key", key), arrow::field("value", item)}));
}

Result<Type> shard_type(const Type& type, const std::string& name) {
  switch (type->id()) {
    case arrow::Type::DICTIONARY:
      return shard_type(static_cast<const arrow::DictionaryType&>(*type).value_type(), name);
    case arrow::Type::RUN_END_ENCODED:
      return shard_type(static_cast<const arrow::RunEndEncodedType&>(*type).value_type(), name);
    case arrow::Type::STRING_VIEW:
      return arrow::utf8();
    case arrow::Type::BINARY_VIEW:
      return arrow::binary();
    case arrow::Type::DECIMAL32:
    case arrow::Type::DECIMAL64: {
      const auto& decimal = static_cast<const arrow::DecimalType&>(*type);
      return arrow::decimal128(decimal.precision(), decimal.scale());
    }
    case arrow::Type::LIST:
    case arrow::Type::LIST_VIEW: {
      LORRY_ASSIGN(auto item, shard_item(type, name));
      return arrow::list(std::move(item));
    }
    case arrow::Type::LARGE_LIST:
    case arrow::Type::LARGE_LIST_VIEW: {
      LORRY_ASSIGN(auto item, shard_item(type, name));
      return arrow::large_list(std::move(item));
    }
    case arrow::Type::FIXED_SIZE_LIST: {
      LORRY_ASSIGN(auto item, shard_item(type, name));
      const auto& list = static_cast<const arrow::FixedSizeListType&>(*type);
      return arrow::fixed_size_list(std::move(item), list.list_size());
    }
    case arrow::Type::STRUCT: {
      LORRY_ASSIGN(auto fields, shard_fields(type->fields(), name + "."));
      return arrow::struct_(std::move(fields));
    }
    case arrow::Type::MAP:
      return shard_map(static_cast<const arrow::MapType&>(*type), name);
    case arrow::Type::EXTENSION: {
      const auto& extension = static_cast<const arrow::ExtensionType&>(*type);
      if (extension.extension_name() == "arrow.json") return arrow::extension::json();
      if (extension.extension_name() == "arrow.bool8") return arrow::boolean();
      return shard_type(extension.storage_type(), name);
    }
    case arrow::Type::SPARSE_UNION:
    case arrow::Type::DENSE_UNION:
    case arrow::Type::INTERVAL_MONTHS:
    case arrow::Type::INTERVAL_DAY_TIME:
    case arrow::Type::INTERVAL_MONTH_DAY_NANO:
      return unsupported(
          fmt::format("column {} is of type {}, which cannot be imported; write it as text or as a "
                      "struct, or leave it out",
                      name, type->ToString()));
    default:
      return type;
  }
}

// ---- one type for two ----

Result<Type> merge_types(const Type& first, const Type& second, const std::string& name);

Result<arrow::FieldVector> merge_fields(const arrow::FieldVector& first,
                                        const arrow::FieldVector& second,
                                        const std::string& prefix) {
  arrow::FieldVector merged = first;
  for (const auto& field : second) {
    const auto same = std::find_if(merged.begin(), merged.end(), [&](const auto& known) {
      return known->name() == field->name();
    });
    if (same == merged.end()) {
      merged.push_back(field);
      continue;
    }
    LORRY_ASSIGN(auto type, merge_types((*same)->type(), field->type(), prefix + field->name()));
    *same = (*same)->WithType(type);
  }
  return merged;
}

bool is_list(const arrow::DataType& type) {
  return type.id() == arrow::Type::LIST || type.id() == arrow::Type::LARGE_LIST ||
         type.id() == arrow::Type::FIXED_SIZE_LIST;
}

Result<Type> merge_lists(const arrow::DataType& first, const arrow::DataType& second,
                         const std::string& name) {
  LORRY_ASSIGN(auto type,
               merge_types(first.field(0)->type(), second.field(0)->type(), name + "[]"));
  auto item = first.field(0)->WithType(std::move(type));
  const auto either_is = [&](arrow::Type::type id) {
    return first.id() == id || second.id() == id;
  };
  if (either_is(arrow::Type::LARGE_LIST)) return arrow::large_list(std::move(item));
  if (either_is(arrow::Type::LIST)) return arrow::list(std::move(item));
  const int32_t size = static_cast<const arrow::FixedSizeListType&>(first).list_size();
  if (size != static_cast<const arrow::FixedSizeListType&>(second).list_size()) {
    return arrow::list(std::move(item));
  }
  return arrow::fixed_size_list(std::move(item), size);
}

/// Of two integer or floating-point types. Where no type holds every value of both (int64 beside
/// double, or beside uint64), values that do not fit stop `conform`.
Type merge_numbers(const Type& first, const Type& second) {
  using arrow::is_floating;
  using arrow::is_signed_integer;
  const auto width = [](const Type& type) {
    return static_cast<const arrow::FixedWidthType&>(*type).bit_width();
  };
  const Type& wider = width(first) >= width(second) ? first : second;
  const bool same_kind = is_floating(first->id()) == is_floating(second->id()) &&
                         is_signed_integer(first->id()) == is_signed_integer(second->id());
  if (same_kind) return wider;
  if (is_floating(first->id()) || is_floating(second->id())) return arrow::float64();
  const int unsigned_bits = width(is_signed_integer(first->id()) ? second : first);
  const int bits = std::max(width(wider), std::min(64, 2 * unsigned_bits));
  return bits == 64 ? arrow::int64() : bits == 32 ? arrow::int32() : arrow::int16();
}

/// Text and bytes: text if either is, so bytes that are no UTF-8 stop `conform`.
Type merge_texts(const arrow::DataType& first, const arrow::DataType& second) {
  const bool large =
      arrow::is_large_binary_like(first.id()) || arrow::is_large_binary_like(second.id());
  const bool text = arrow::is_string(first.id()) || arrow::is_string(second.id());
  if (text) return large ? arrow::large_utf8() : arrow::utf8();
  return large ? arrow::large_binary() : arrow::binary();
}

/// Null if there is none.
Type merge_decimals(const arrow::DecimalType& first, const arrow::DecimalType& second) {
  const int scale = std::max(first.scale(), second.scale());
  const int whole =
      std::max(first.precision() - first.scale(), second.precision() - second.scale());
  if (whole + scale <= arrow::Decimal128Type::kMaxPrecision) {
    return arrow::decimal128(whole + scale, scale);
  }
  if (whole + scale > arrow::Decimal256Type::kMaxPrecision) return nullptr;
  return arrow::decimal256(whole + scale, scale);
}

bool is_date(const arrow::DataType& type) {
  return type.id() == arrow::Type::DATE32 || type.id() == arrow::Type::DATE64;
}

/// Of two types of the same kind but of different units; null of anything else.
Type merge_times(const arrow::DataType& first, const arrow::DataType& second) {
  if (is_date(first) && is_date(second)) return arrow::date64();
  if (first.id() == arrow::Type::TIMESTAMP && second.id() == arrow::Type::TIMESTAMP) {
    const auto& one = static_cast<const arrow::TimestampType&>(first);
    const auto& other = static_cast<const arrow::TimestampType&>(second);
    if (one.timezone() != other.timezone()) return nullptr;
    return arrow::timestamp(std::max(one.unit(), other.unit()), one.timezone());
  }
  if (first.id() == arrow::Type::DURATION && second.id() == arrow::Type::DURATION) {
    return arrow::duration(std::max(static_cast<const arrow::DurationType&>(first).unit(),
                                    static_cast<const arrow::DurationType&>(second).unit()));
  }
  if (arrow::is_time(first.id()) && arrow::is_time(second.id())) {
    const auto unit = std::max(static_cast<const arrow::TimeType&>(first).unit(),
                               static_cast<const arrow::TimeType&>(second).unit());
    return unit <= arrow::TimeUnit::MILLI ? arrow::time32(unit) : arrow::time64(unit);
  }
  return nullptr;
}

bool is_number(const arrow::DataType& type) {
  return arrow::is_integer(type.id()) || arrow::is_floating(type.id());
}

bool is_text(const arrow::DataType& type) { return arrow::is_base_binary_like(type.id()); }

Result<Type> merge_types(const Type& first, const Type& second, const std::string& name) {
  if (second->id() == arrow::Type::NA || first->Equals(*second)) return first;
  if (first->id() == arrow::Type::NA) return second;
  if (first->id() == arrow::Type::STRUCT && second->id() == arrow::Type::STRUCT) {
    LORRY_ASSIGN(auto fields, merge_fields(first->fields(), second->fields(), name + "."));
    return arrow::struct_(std::move(fields));
  }
  if (is_list(*first) && is_list(*second)) return merge_lists(*first, *second, name);
  if (is_number(*first) && is_number(*second)) return merge_numbers(first, second);
  if (is_text(*first) && is_text(*second)) return merge_texts(*first, *second);
  Type merged;
  if (arrow::is_decimal(first->id()) && arrow::is_decimal(second->id())) {
    merged = merge_decimals(static_cast<const arrow::DecimalType&>(*first),
                            static_cast<const arrow::DecimalType&>(*second));
  } else {
    merged = merge_times(*first, *second);
  }
  if (merged) return merged;
  return invalid_input(fmt::format("column {} is {} here, but {} in the files before it", name,
                                   second->ToString(), first->ToString()));
}

}  // namespace

Result<std::shared_ptr<arrow::Schema>> shard_schema(const arrow::Schema& schema) {
  LORRY_ASSIGN(auto fields, shard_fields(schema.fields(), ""));
  return arrow::schema(std::move(fields));
}

Result<std::shared_ptr<arrow::Schema>> merge_schemas(const arrow::Schema& first,
                                                     const arrow::Schema& second) {
  LORRY_ASSIGN(auto fields, merge_fields(first.fields(), second.fields(), ""));
  return arrow::schema(std::move(fields));
}

}  // namespace lorry::data
