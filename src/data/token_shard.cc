#include "data/token_shard.h"

#include <arrow/array.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <fmt/format.h>

namespace lorry::data {
namespace {

template <typename ValueArray>
auto list_values(const arrow::Array& column, int64_t row) {
  const auto& list = static_cast<const arrow::ListArray&>(column);
  const auto& values = static_cast<const ValueArray&>(*list.values());
  return std::span(values.raw_values() + list.value_offset(row), size_t(list.value_length(row)));
}

}  // namespace

std::shared_ptr<arrow::Schema> token_schema(bool with_text) {
  arrow::FieldVector fields = {arrow::field("input_ids", arrow::list(arrow::int32())),
                               arrow::field("assistant_masks", arrow::list(arrow::int8()))};
  if (with_text) fields.push_back(arrow::field("text", arrow::utf8()));
  return arrow::schema(std::move(fields));
}

Result<std::shared_ptr<TokenShardReader>> TokenShardReader::open(const store::Bucket& bucket,
                                                                 const std::string& dir) {
  LORRY_ASSIGN(auto shard, ShardReader::open(bucket, dir));
  const auto want = token_schema(false);
  const auto have = shard->schema();
  // The two come first, in this order, so that `row` finds them without a search.
  for (int c = 0; c < 2; ++c) {
    if (have->num_fields() <= c || have->field(c)->name() != want->field(c)->name() ||
        !have->field(c)->type()->Equals(want->field(c)->type())) {
      return corrupt_data(fmt::format("{}: column {} is not {}: {}; run pretokenize again", dir, c,
                                      want->field(c)->name(), want->field(c)->type()->ToString()));
    }
  }
  // A row's two lists must be equally long: training indexes one by the other.
  for (int64_t b = 0; b < shard->num_batches(); ++b) {
    const auto batch = shard->batch(b);
    const auto& ids = static_cast<const arrow::ListArray&>(*batch->column(0));
    const auto& masks = static_cast<const arrow::ListArray&>(*batch->column(1));
    for (int64_t row = 0; row < batch->num_rows(); ++row) {
      const auto length = ids.value_length(row);  // below 0 where offsets are damaged
      if (length >= 0 && length == masks.value_length(row)) continue;
      return corrupt_data(fmt::format(
          "{}: row {} has {} input_ids and {} assistant_masks; run pretokenize again", dir,
          shard->batch_start(b) + row, ids.value_length(row), masks.value_length(row)));
    }
  }
  return std::shared_ptr<TokenShardReader>(new TokenShardReader(std::move(shard)));
}

TokenRow TokenShardReader::row(int64_t row) const {
  const auto [batch, at] = shard_->locate(row);
  return {list_values<arrow::Int32Array>(*batch->column(0), at),
          list_values<arrow::Int8Array>(*batch->column(1), at)};
}

}  // namespace lorry::data
