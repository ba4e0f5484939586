#include "data/row_bytes.h"

#include <arrow/array.h>
#include <arrow/extension_type.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>

namespace lorry::data {
namespace {

int64_t array_bytes(const arrow::Array& array, int64_t begin, int64_t end);

template <typename Text>
int64_t text_bytes(const arrow::Array& array, int64_t begin, int64_t end) {
  const auto& text = static_cast<const Text&>(array);
  const int64_t width = int64_t(sizeof(typename Text::offset_type));
  return int64_t(text.value_offset(end) - text.value_offset(begin)) + (end - begin) * width;
}

template <typename List>
int64_t list_bytes(const arrow::Array& array, int64_t begin, int64_t end) {
  const auto& list = static_cast<const List&>(array);
  const int64_t width = int64_t(sizeof(typename List::offset_type));
  return array_bytes(*list.values(), list.value_offset(begin), list.value_offset(end)) +
         (end - begin) * width;
}

/// `begin` and `end` count from the array's own begin.
int64_t array_bytes(const arrow::Array& array, int64_t begin, int64_t end) {
  if (begin == end) return 0;
  switch (array.type_id()) {
    case arrow::Type::STRING:
    case arrow::Type::BINARY:
      return text_bytes<arrow::BinaryArray>(array, begin, end);
    case arrow::Type::LARGE_STRING:
    case arrow::Type::LARGE_BINARY:
      return text_bytes<arrow::LargeBinaryArray>(array, begin, end);
    case arrow::Type::LIST:
    case arrow::Type::MAP:
      return list_bytes<arrow::ListArray>(array, begin, end);
    case arrow::Type::LARGE_LIST:
      return list_bytes<arrow::LargeListArray>(array, begin, end);
    case arrow::Type::FIXED_SIZE_LIST: {
      const auto& list = static_cast<const arrow::FixedSizeListArray&>(array);
      return array_bytes(*list.values(), list.value_offset(begin), list.value_offset(end));
    }
    case arrow::Type::STRUCT: {
      int64_t bytes = 0;
      const auto& fields = static_cast<const arrow::StructArray&>(array);
      for (int i = 0; i < fields.num_fields(); ++i) {
        bytes += array_bytes(*fields.field(i), begin, end);
      }
      return bytes;
    }
    case arrow::Type::EXTENSION:
      return array_bytes(*static_cast<const arrow::ExtensionArray&>(array).storage(), begin, end);
    default: {
      const int bits = array.type()->bit_width();
      return (end - begin) * (bits > 8 ? bits / 8 : 1);
    }
  }
}

}  // namespace

int64_t row_bytes(const arrow::RecordBatch& batch, int64_t begin, int64_t end) {
  int64_t bytes = 0;
  for (const auto& column : batch.columns()) bytes += array_bytes(*column, begin, end);
  return bytes;
}

}  // namespace lorry::data
