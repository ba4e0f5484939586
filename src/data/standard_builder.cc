#include "data/standard_builder.h"

#include <arrow/array.h>

namespace lorry::data {
namespace {

arrow::Status append_optional(arrow::StringBuilder& builder, std::string_view text) {
  return text.data() == nullptr ? builder.AppendNull() : builder.Append(text);
}

std::string_view view(const std::optional<std::string>& text) {
  return text ? std::string_view(*text) : std::string_view();
}

}  // namespace

StandardBuilder::StandardBuilder(RowFormat format, const OptionalColumns& columns)
    : columns_(columns),
      schema_(standard_schema(format, columns)),
      is_text_(format == RowFormat::kText) {}

arrow::Status StandardBuilder::reserve(int64_t rows, int64_t bytes) {
  if (is_text_) {
    ARROW_RETURN_NOT_OK(text_.Reserve(rows));
    return text_.ReserveData(bytes);
  }
  ARROW_RETURN_NOT_OK(row_ends_.Reserve(rows + 1));
  return content_.ReserveData(bytes);
}

arrow::Status StandardBuilder::append_turn(const TurnView& turn) {
  ARROW_RETURN_NOT_OK(role_.Append(turn.role));
  ARROW_RETURN_NOT_OK(content_.Append(turn.content));
  if (columns_.reasoning_content) {
    ARROW_RETURN_NOT_OK(append_optional(reasoning_content_, turn.reasoning_content));
  }
  if (columns_.tool_calls) ARROW_RETURN_NOT_OK(append_optional(tool_calls_, turn.tool_calls));
  if (columns_.tool_call_id) ARROW_RETURN_NOT_OK(append_optional(tool_call_id_, turn.tool_call_id));
  if (columns_.name) ARROW_RETURN_NOT_OK(append_optional(name_, turn.name));
  if (columns_.weight) ARROW_RETURN_NOT_OK(append_optional(weight_, turn.weight));
  return arrow::Status::OK();
}

arrow::Status StandardBuilder::end_row(std::string_view tools) {
  if (rows_ == 0) ARROW_RETURN_NOT_OK(row_ends_.Append(0));
  ++rows_;
  ARROW_RETURN_NOT_OK(row_ends_.Append(int32_t(content_.length())));
  return columns_.tools ? append_optional(tools_, tools) : arrow::Status::OK();
}

arrow::Status StandardBuilder::append_text(std::string_view text, std::string_view segments) {
  ++rows_;
  ARROW_RETURN_NOT_OK(text_.Append(text));
  return columns_.segments ? append_optional(segments_, segments) : arrow::Status::OK();
}

arrow::Status StandardBuilder::append(const StandardRow& row) {
  if (is_text_) return append_text(row.text, view(row.segments));
  for (const Turn& turn : row.turns) {
    ARROW_RETURN_NOT_OK(
        append_turn({turn.role, turn.content, view(turn.reasoning_content), view(turn.tool_calls),
                     view(turn.tool_call_id), view(turn.name),
                     turn.learned ? std::string_view() : std::string_view("0")}));
  }
  return end_row(view(row.tools));
}

arrow::Result<std::shared_ptr<arrow::Array>> StandardBuilder::finish_conversations() {
  if (rows_ == 0) ARROW_RETURN_NOT_OK(row_ends_.Append(0));
  const int64_t turns = content_.length();
  arrow::ArrayVector fields;
  const auto add = [&](bool wanted, arrow::StringBuilder& builder) -> arrow::Status {
    if (!wanted) return arrow::Status::OK();
    ARROW_ASSIGN_OR_RAISE(auto array, builder.Finish());
    fields.push_back(std::move(array));
    return arrow::Status::OK();
  };
  ARROW_RETURN_NOT_OK(add(true, role_));
  ARROW_RETURN_NOT_OK(add(true, content_));
  ARROW_RETURN_NOT_OK(add(columns_.reasoning_content, reasoning_content_));
  ARROW_RETURN_NOT_OK(add(columns_.tool_calls, tool_calls_));
  ARROW_RETURN_NOT_OK(add(columns_.tool_call_id, tool_call_id_));
  ARROW_RETURN_NOT_OK(add(columns_.name, name_));
  ARROW_RETURN_NOT_OK(add(columns_.weight, weight_));
  const auto& list = schema_->field(0)->type();
  auto turn = std::make_shared<arrow::StructArray>(list->field(0)->type(), turns, fields);
  ARROW_ASSIGN_OR_RAISE(auto offsets, row_ends_.Finish());
  return std::make_shared<arrow::ListArray>(list, rows_, std::move(offsets), std::move(turn));
}

arrow::Result<std::shared_ptr<arrow::RecordBatch>> StandardBuilder::finish() {
  arrow::ArrayVector columns(1);
  if (is_text_) {
    ARROW_ASSIGN_OR_RAISE(columns[0], text_.Finish());
  } else {
    ARROW_ASSIGN_OR_RAISE(columns[0], finish_conversations());
  }
  if (columns_.segments && is_text_) {
    ARROW_ASSIGN_OR_RAISE(auto segments, segments_.Finish());
    columns.push_back(std::move(segments));
  }
  if (columns_.tools && !is_text_) {
    ARROW_ASSIGN_OR_RAISE(auto tools, tools_.Finish());
    columns.push_back(std::move(tools));
  }
  return arrow::RecordBatch::Make(schema_, rows_, std::move(columns));
}

}  // namespace lorry::data
