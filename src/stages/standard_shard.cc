#include "stages/standard_shard.h"

#include <arrow/record_batch.h>
#include <arrow/type.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/digest.h"
#include "base/version.h"
#include "data/conversations.h"
#include "store/layout.h"

namespace lorry::stages {
namespace {

/// Rows that are looked at to recognise the format.
constexpr int64_t kSampleRows = 100;

constexpr const char* kRowFields[] = {"rows", "columns", "needed", "filled"};

/// Decides the bytes of a standardized shard, given the rules' sample: that of shard 0 of the same
/// import.
std::string ahead_key(const data::RowOptions& options, const std::string& raw_key) {
  return sha256_hex(dump_json(Json{{"lorry_version", kVersion},
                                   {"format", kStandardFormat},
                                   {"options", options.to_json()},
                                   {"raw", raw_key}}));
}

}  // namespace

Result<StandardRules> find_standard_rules(const arrow::Schema& schema,
                                          const arrow::RecordBatch* first,
                                          const data::RowOptions& options) {
  std::vector<Json> sample;
  for (int64_t row = 0; first && row < std::min(first->num_rows(), kSampleRows); ++row) {
    sample.push_back(data::row_to_json(*first, row));
  }
  StandardRules found;
  LORRY_ASSIGN(found.rules, data::find_rules(schema, sample, options));
  found.unused_columns = data::unused_columns(schema, sample, found.rules);
  for (const Json& row : sample) {
    const auto done = data::standardize_row(found.rules, row);
    if (done.ok() && done->dropped.empty()) found.columns.add(*done);
  }
  return found;
}

Result<StandardRules> find_standard_rules(const store::Bucket& bucket, const std::string& dataset,
                                          const data::RowOptions& options) {
  const std::string first = store::shard_dir(store::raw_dir(dataset), 0);
  LORRY_ASSIGN(auto shard, data::ShardStream::open(bucket, first));
  LORRY_ASSIGN(const auto batch, shard->next());
  return find_standard_rules(*shard->schema(), batch.get(), options);
}

StandardShard::StandardShard(std::string from, const data::RowRules& rules,
                             const data::OptionalColumns& columns,
                             std::unique_ptr<data::ShardWriter> writer)
    : from_(std::move(from)), rules_(rules), columns_(columns), writer_(std::move(writer)) {}

Result<std::unique_ptr<StandardShard>> StandardShard::create(std::shared_ptr<store::Bucket> bucket,
                                                             const std::string& dataset,
                                                             int64_t shard,
                                                             const data::RowRules& rules,
                                                             const data::OptionalColumns& columns) {
  const std::string dir = store::shard_dir(store::standardized_dir(dataset), shard);
  LORRY_ASSIGN(auto writer,
               data::ShardWriter::create(std::move(bucket), dir,
                                         data::standard_schema(rules.format, columns)));
  return std::unique_ptr<StandardShard>(new StandardShard(
      store::shard_dir(store::raw_dir(dataset), shard), rules, columns, std::move(writer)));
}

StandardPiece StandardShard::standardize(const RowPiece& piece) const {
  return {piece.first_row, piece.batch->num_rows(),
          data::standardize_batch(rules_, columns_, *piece.batch)};
}

Result<bool> StandardShard::add(StandardPiece piece, const Refuse& refuse) {
  LORRY_ASSIGN(const auto done, std::move(piece.done).with_context(from_));
  needed_.add(done.needed);
  if (!done.rows) return false;
  filled_.insert(done.filled.begin(), done.filled.end());
  placeholders_.insert(done.placeholders.begin(), done.placeholders.end());
  ledger_.keep(done.rows->num_rows());
  for (const auto& row : done.left_out) {
    Ledger::Named named{from_, piece.first_row + row.row, row.malformed};
    if (row.malformed.empty()) {
      ledger_.drop(row.reason, std::move(named));
    } else {
      LORRY_TRY(refuse(ledger_, std::move(named)));
    }
  }
  for (const auto& row : done.noted) {
    ledger_.note(row.reason, {from_, piece.first_row + row.row, ""});
  }
  LORRY_TRY(writer_->write(*done.rows));
  return true;
}

Json StandardShard::state() const {
  Json state;
  state["rows"] = ledger_.kept();
  state["columns"] = columns_.to_json();
  state["needed"] = needed_.to_json();
  state["filled"] = filled_;
  return state;
}

Json ahead_state(const StandardShard& shard, const data::RowOptions& options,
                 const std::string& raw_key) {
  Json state;
  state["ahead"] = ahead_key(options, raw_key);
  state["placeholders"] = shard.placeholders();
  state["ledger"] = shard.ledger().to_json();
  state.update(shard.state());
  return state;
}

bool is_ahead_of(const Json& state, const data::RowOptions& options, const std::string& raw_key) {
  const auto key = state.find("ahead");
  return key != state.end() && *key == ahead_key(options, raw_key);
}

std::set<std::string> ahead_placeholders(const Json& state) {
  return state.value("placeholders", std::set<std::string>());
}

Json adopted_state(Json head, const Json& state) {
  for (const char* field : kRowFields) head[field] = state.value(field, Json());
  return head;
}

}  // namespace lorry::stages
