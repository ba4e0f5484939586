#include "data/standard_batch.h"

#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <arrow/util/byte_size.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/shard.h"
#include "data/standard_builder.h"
#include "data/standard_rows.h"
#include "store/arrow_error.h"

namespace lorry::data {
namespace {

constexpr std::pair<const char*, bool OptionalColumns::*> kOptional[] = {
    {"reasoning_content", &OptionalColumns::reasoning_content},
    {"tool_calls", &OptionalColumns::tool_calls},
    {"tool_call_id", &OptionalColumns::tool_call_id},
    {"name", &OptionalColumns::name},
    {"weight", &OptionalColumns::weight},
    {"tools", &OptionalColumns::tools},
    {"segments", &OptionalColumns::segments}};

/// The columns that the rules name: a JSON value of the others would be made in vain.
arrow::Result<std::shared_ptr<arrow::RecordBatch>> needed_columns(const RowRules& rules,
                                                                  const arrow::RecordBatch& batch) {
  std::vector<int> keep;
  for (int i = 0; i < batch.num_columns(); ++i) {
    if (rules.needs(batch.column_name(i))) keep.push_back(i);
  }
  return batch.SelectColumns(keep);
}

class Batch {
 public:
  Batch(const RowRules& rules, const OptionalColumns& columns, const arrow::RecordBatch& rows)
      : rules_(rules), columns_(columns), raw_(rows), builder_(rules.format, columns) {}

  arrow::Result<StandardBatch> run(bool fast) {
    ARROW_ASSIGN_OR_RAISE(rows_, needed_columns(rules_, raw_));
    ARROW_ASSIGN_OR_RAISE(const int64_t bytes, arrow::util::ReferencedBufferSize(*rows_));
    ARROW_RETURN_NOT_OK(builder_.reserve(rows_->num_rows(), std::min(bytes, kMostReserved)));
    auto usual = fast ? FastRows::of(rules_, *rows_) : std::nullopt;
    for (int64_t row = 0; row < rows_->num_rows(); ++row) {
      bool done = false;
      if (usual) {
        ARROW_ASSIGN_OR_RAISE(done, usual->append(row, builder_, out_.needed));
      }
      if (!done) ARROW_RETURN_NOT_OK(add_slowly(row));
    }
    if (columns_.include(out_.needed)) {
      ARROW_ASSIGN_OR_RAISE(out_.rows, builder_.finish());
    }
    return std::move(out_);
  }

 private:
  static constexpr int64_t kMostReserved = 1 << 30;

  arrow::Status add_slowly(int64_t row) {
    auto done = standardize_row(rules_, row_to_json(*rows_, row));
    if (!done.ok()) {
      out_.left_out.push_back({row, kMalformed, done.error().message});
      return arrow::Status::OK();
    }
    out_.placeholders.merge(done->placeholders);
    out_.filled.merge(done->filled);
    if (!done->dropped.empty()) {
      out_.left_out.push_back({row, done->dropped, ""});
      return arrow::Status::OK();
    }
    for (const auto& note : done->notes) out_.noted.push_back({row, note, ""});
    out_.needed.add(*done);
    return builder_.append(*done);
  }

  const RowRules& rules_;
  const OptionalColumns& columns_;
  const arrow::RecordBatch& raw_;
  std::shared_ptr<arrow::RecordBatch> rows_;
  StandardBuilder builder_;
  StandardBatch out_;
};

}  // namespace

void OptionalColumns::add(const OptionalColumns& other) {
  for (const auto& [name, member] : kOptional) this->*member |= other.*member;
}

void OptionalColumns::add(const StandardRow& row) {
  tools |= row.tools.has_value();
  segments |= row.segments.has_value();
  for (const Turn& turn : row.turns) {
    tool_calls |= turn.tool_calls.has_value();
    tool_call_id |= turn.tool_call_id.has_value();
    name |= turn.name.has_value();
    reasoning_content |= turn.reasoning_content.has_value();
    weight |= !turn.learned;
  }
}

bool OptionalColumns::include(const OptionalColumns& other) const {
  OptionalColumns both = *this;
  both.add(other);
  return both == *this;
}

Json OptionalColumns::to_json() const {
  Json names = Json::array();
  for (const auto& [name, member] : kOptional) {
    if (this->*member) names.push_back(name);
  }
  return names;
}

OptionalColumns OptionalColumns::from_json(const Json& names) {
  OptionalColumns columns;
  for (const auto& [name, member] : kOptional) {
    columns.*member = std::find(names.begin(), names.end(), name) != names.end();
  }
  return columns;
}

std::shared_ptr<arrow::Schema> standard_schema(RowFormat format, const OptionalColumns& columns) {
  const auto text = [](const char* name) { return arrow::field(name, arrow::utf8()); };
  if (format == RowFormat::kText) {
    if (columns.segments) return arrow::schema({text("text"), text("segments")});
    return arrow::schema({text("text")});
  }
  arrow::FieldVector turn = {text("role"), text("content")};
  for (const auto& [name, member] : kOptional) {
    const bool is_of_row =
        member == &OptionalColumns::tools || member == &OptionalColumns::segments;
    if (columns.*member && !is_of_row) turn.push_back(text(name));
  }
  arrow::FieldVector fields = {arrow::field("conversations", arrow::list(arrow::struct_(turn)))};
  if (columns.tools) fields.push_back(text("tools"));
  return arrow::schema(std::move(fields));
}

Result<StandardBatch> standardize_batch(const RowRules& rules, const OptionalColumns& columns,
                                        const arrow::RecordBatch& batch) {
  return store::from_arrow(Batch(rules, columns, batch).run(true), "rows");
}

Result<StandardBatch> standardize_batch_slowly(const RowRules& rules,
                                               const OptionalColumns& columns,
                                               const arrow::RecordBatch& batch) {
  return store::from_arrow(Batch(rules, columns, batch).run(false), "rows");
}

}  // namespace lorry::data
