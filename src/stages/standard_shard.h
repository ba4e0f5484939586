// One standardized shard in the making: shared by the stage that reads raw shards (standardize.h)
// and by the import that has their rows at hand (one_pass.h).
#pragma once

#include <arrow/type_fwd.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "data/row_rules.h"
#include "data/shard.h"
#include "data/standard_batch.h"
#include "stages/ledger.h"
#include "stages/pieces.h"
#include "store/bucket.h"

namespace lorry::stages {

/// Raised when the same raw rows come to give other standardized bytes.
inline constexpr int kStandardFormat = 2;

/// How the rows of a data set are read.
struct StandardRules {
  data::RowRules rules;
  data::OptionalColumns columns;  ///< that the first rows need; later rows may need more
  std::vector<std::string> unused_columns;
};

/// From the schema of raw shard 0 and its first record batch (null: it is empty), of which the
/// first 100 rows are looked at. Fails as data::find_rules does.
Result<StandardRules> find_standard_rules(const arrow::Schema& schema,
                                          const arrow::RecordBatch* first,
                                          const data::RowOptions& options);
/// The same, from the bucket: raw shard 0 must be whole.
Result<StandardRules> find_standard_rules(const store::Bucket& bucket, const std::string& dataset,
                                          const data::RowOptions& options);

/// A piece of a raw shard, standardized.
struct StandardPiece {
  int64_t first_row = 0, rows = 0;  ///< of the raw shard
  Result<data::StandardBatch> done = data::StandardBatch();
};

/// Not thread-safe, but for `standardize`.
class StandardShard {
 public:
  /// Decides on a malformed row: an error, or the row goes to the ledger.
  using Refuse = std::function<Result<>(Ledger& ledger, Ledger::Named row)>;

  /// `rules` outlive this object. Removes the state.json of an earlier writer.
  static Result<std::unique_ptr<StandardShard>> create(std::shared_ptr<store::Bucket> bucket,
                                                       const std::string& dataset, int64_t shard,
                                                       const data::RowRules& rules,
                                                       const data::OptionalColumns& columns);

  StandardPiece standardize(const RowPiece& piece) const;
  /// Pieces in their order. False, and nothing written, if rows need columns that the shard was
  /// begun without: it must be begun again with those of `needed`.
  Result<bool> add(StandardPiece piece, const Refuse& refuse);

  const Ledger& ledger() const { return ledger_; }
  const data::OptionalColumns& needed() const { return needed_; }  ///< by the rows so far
  const std::set<std::string>& filled() const { return filled_; }
  /// Names of {{name}} that stayed as they were.
  const std::set<std::string>& placeholders() const { return placeholders_; }
  /// What state.json says of the rows, beside key and ledger.
  Json state() const;
  /// Once, after the last piece.
  std::unique_ptr<data::ShardWriter> take_writer() { return std::move(writer_); }

 private:
  StandardShard(std::string from, const data::RowRules& rules, const data::OptionalColumns& columns,
                std::unique_ptr<data::ShardWriter> writer);

  const std::string from_;  ///< the raw shard
  const data::RowRules& rules_;
  const data::OptionalColumns columns_;
  std::unique_ptr<data::ShardWriter> writer_;
  Ledger ledger_;
  data::OptionalColumns needed_;
  std::set<std::string> filled_, placeholders_;
};

/// What an import writes into the state.json of a shard that it has standardized. The key of the
/// stage's work cannot be told before all raw shards are there: until the stage adopts the shard,
/// which changes state.json alone, it says of which raw shard and options it was made.
Json ahead_state(const StandardShard& shard, const data::RowOptions& options,
                 const std::string& raw_key);
/// Whether `state`, which ahead_state gave, was made of the raw shard with `raw_key`.
bool is_ahead_of(const Json& state, const data::RowOptions& options, const std::string& raw_key);
/// The names that StandardShard::placeholders gave.
std::set<std::string> ahead_placeholders(const Json& state);
/// `state` as the stage writes it. `head`: ShardWork::state of the shard.
Json adopted_state(Json head, const Json& state);

}  // namespace lorry::stages
