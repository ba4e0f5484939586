// Record batches of one file in the schema of all: column_types.h.
#include <arrow/array.h>
#include <arrow/array/util.h>
#include <arrow/builder.h>
#include <arrow/compute/api_vector.h>  // Take
#include <arrow/compute/cast.h>
#include <arrow/extension_type.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <arrow/util/bitmap_ops.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "data/column_types.h"
#include "data/row_value.h"
#include "store/arrow_error.h"

namespace lorry::data {
namespace {

using ArrayPtr = std::shared_ptr<arrow::Array>;
using Type = std::shared_ptr<arrow::DataType>;

arrow::Result<ArrayPtr> conform(const ArrayPtr& array, const Type& type);

/// The bits that say which values are there, moved to bit 0.
arrow::Result<std::shared_ptr<arrow::Buffer>> validity_of(const arrow::Array& array) {
  if (array.null_count() == 0) return nullptr;
  if (array.offset() == 0) return array.null_bitmap();
  return arrow::internal::CopyBitmap(arrow::default_memory_pool(), array.null_bitmap_data(),
                                     array.offset(), array.length());
}

arrow::Result<ArrayPtr> conform_struct(const arrow::StructArray& array, const Type& type) {
  arrow::ArrayVector fields;
  for (const auto& field : type->fields()) {
    const auto mine = array.GetFieldByName(field->name());
    if (mine) {
      ARROW_ASSIGN_OR_RAISE(auto conformed, conform(mine, field->type()));
      fields.push_back(std::move(conformed));
    } else {
      ARROW_ASSIGN_OR_RAISE(auto nulls, arrow::MakeArrayOfNull(field->type(), array.length()));
      fields.push_back(std::move(nulls));
    }
  }
  ARROW_ASSIGN_OR_RAISE(auto validity, validity_of(array));
  return std::make_shared<arrow::StructArray>(type, array.length(), std::move(fields),
                                              std::move(validity), array.null_count());
}

/// The list with its items of the type of `type`'s items, still a list of its own kind.
arrow::Result<ArrayPtr> with_items_of(const arrow::Array& list, const Type& type) {
  const auto& item = type->field(0);
  auto data = list.data()->Copy();
  ARROW_ASSIGN_OR_RAISE(auto items, conform(arrow::MakeArray(data->child_data[0]), item->type()));
  data->child_data[0] = items->data();
  if (list.type_id() == arrow::Type::LIST) {
    data->type = arrow::list(item);
  } else if (list.type_id() == arrow::Type::LARGE_LIST) {
    data->type = arrow::large_list(item);
  } else {
    const auto& fixed = static_cast<const arrow::FixedSizeListType&>(*list.type());
    data->type = arrow::fixed_size_list(item, fixed.list_size());
  }
  return arrow::MakeArray(data);
}

arrow::Result<ArrayPtr> conform_list(const ArrayPtr& array, const Type& type) {
  switch (array->type_id()) {
    case arrow::Type::LIST_VIEW: {
      ARROW_ASSIGN_OR_RAISE(auto list, arrow::ListArray::FromListView(
                                           static_cast<const arrow::ListViewArray&>(*array),
                                           arrow::default_memory_pool()));
      return conform(list, type);
    }
    case arrow::Type::LARGE_LIST_VIEW: {
      ARROW_ASSIGN_OR_RAISE(auto list, arrow::LargeListArray::FromListView(
                                           static_cast<const arrow::LargeListViewArray&>(*array),
                                           arrow::default_memory_pool()));
      return conform(list, type);
    }
    case arrow::Type::MAP: {  // laid out as a list of pairs
      const auto& map = static_cast<const arrow::MapType&>(*array->type());
      auto data = array->data()->Copy();
      data->type = arrow::list(arrow::struct_(
          {arrow::field("key", map.key_type()), arrow::field("value", map.item_type())}));
      data->child_data[0] = data->child_data[0]->Copy();
      data->child_data[0]->type = data->type->field(0)->type();
      return conform(arrow::MakeArray(data), type);
    }
    default:
      break;
  }
  ARROW_ASSIGN_OR_RAISE(auto list, with_items_of(*array, type));
  if (list->type_id() == type->id() && list->type()->Equals(*type)) return list;
  return arrow::compute::Cast(*list, type);
}

/// Maps as texts of JSON objects.
arrow::Result<ArrayPtr> conform_map(const arrow::Array& maps, const Type& type) {
  arrow::StringBuilder texts;
  for (int64_t i = 0; i < maps.length(); ++i) {
    if (maps.IsNull(i)) {
      ARROW_RETURN_NOT_OK(texts.AppendNull());
    } else {
      ARROW_RETURN_NOT_OK(texts.Append(dump_json(value_to_json(maps, i))));
    }
  }
  ARROW_ASSIGN_OR_RAISE(auto stored, texts.Finish());
  return arrow::ExtensionType::WrapArray(type, stored);
}

/// For each row the place of its run.
template <typename EndArray>
arrow::Result<ArrayPtr> places_of_runs(const arrow::RunEndEncodedArray& runs) {
  const auto& ends = static_cast<const EndArray&>(*runs.run_ends());
  arrow::Int64Builder places;
  ARROW_RETURN_NOT_OK(places.Reserve(runs.length()));
  int64_t run = 0;
  for (int64_t i = 0; i < runs.length(); ++i) {
    while (int64_t(ends.Value(run)) <= runs.offset() + i) ++run;
    places.UnsafeAppend(run);
  }
  return places.Finish();
}

arrow::Result<ArrayPtr> places_of_runs_of_any_width(const arrow::RunEndEncodedArray& runs) {
  switch (runs.run_ends()->type_id()) {
    case arrow::Type::INT16:
      return places_of_runs<arrow::Int16Array>(runs);
    case arrow::Type::INT32:
      return places_of_runs<arrow::Int32Array>(runs);
    default:
      return places_of_runs<arrow::Int64Array>(runs);
  }
}

arrow::Result<ArrayPtr> conform(const ArrayPtr& array, const Type& type) {
  if (array->type()->Equals(*type)) return array;
  switch (array->type_id()) {
    case arrow::Type::NA:
      return arrow::MakeArrayOfNull(type, array->length());
    case arrow::Type::DICTIONARY: {
      const auto& coded = static_cast<const arrow::DictionaryArray&>(*array);
      ARROW_ASSIGN_OR_RAISE(const auto values,
                            arrow::compute::Take(*coded.dictionary(), *coded.indices()));
      return conform(values, type);
    }
    case arrow::Type::RUN_END_ENCODED: {
      const auto& runs = static_cast<const arrow::RunEndEncodedArray&>(*array);
      ARROW_ASSIGN_OR_RAISE(const auto places, places_of_runs_of_any_width(runs));
      ARROW_ASSIGN_OR_RAISE(const auto values, arrow::compute::Take(*runs.values(), *places));
      return conform(values, type);
    }
    case arrow::Type::EXTENSION:
      return conform(static_cast<const arrow::ExtensionArray&>(*array).storage(), type);
    default:
      break;
  }
  switch (type->id()) {
    case arrow::Type::STRUCT:
      return conform_struct(static_cast<const arrow::StructArray&>(*array), type);
    case arrow::Type::LIST:
    case arrow::Type::LARGE_LIST:
    case arrow::Type::FIXED_SIZE_LIST:
      return conform_list(array, type);
    case arrow::Type::EXTENSION:
      return conform_map(*array, type);
    default:
      return arrow::compute::Cast(*array, type);  // checked: values that do not fit are errors
  }
}

}  // namespace

Result<std::shared_ptr<arrow::RecordBatch>> conform(const arrow::RecordBatch& rows,
                                                    const std::shared_ptr<arrow::Schema>& schema) {
  arrow::ArrayVector columns;
  for (const auto& field : schema->fields()) {
    const auto mine = rows.GetColumnByName(field->name());
    auto column = mine ? conform(mine, field->type())
                       : arrow::MakeArrayOfNull(field->type(), rows.num_rows());
    if (!column.ok()) {
      return invalid_input(fmt::format("column {}: {} (its type is {} in all files together)",
                                       field->name(), store::arrow_reason(column.status()),
                                       field->type()->ToString()));
    }
    columns.push_back(*std::move(column));
  }
  return arrow::RecordBatch::Make(schema, rows.num_rows(), std::move(columns));
}

}  // namespace lorry::data
