// Standardized shards that an import writes while it writes the raw ones, from the same record
// batches: the raw shards need not be read again.
//
// What becomes of the rows is the same as in the stage `standardize`, which comes after the import
// in any case. It adopts the shards that are whole, makes those that are not, and writes info.json.
// So nothing here is an error: a row, a store or a rule that gives trouble ends the one pass, and
// the stage meets it again and says so.
#pragma once

#include <arrow/type_fwd.h>

#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <string>

#include "data/ordered_work.h"
#include "stages/import_dataset.h"
#include "stages/pieces.h"
#include "stages/standard_shard.h"
#include "store/claim.h"

namespace lorry::stages {

/// Not thread-safe.
class OnePass {
 public:
  /// Null where the raw shards are to be read again: with several nodes (a node sees a part of the
  /// rows, and not the first ones, which tell the rules); with `fresh`; with less than 256 MB of
  /// memory; where finished standardized shards must stay until the raw ones are whole; where
  /// another process is at work on them.
  static std::unique_ptr<OnePass> begin(const ImportDatasetOptions& options,
                                        const std::string& dataset);
  ~OnePass();

  /// Of the raw shard that is being written. `raw_key`: by which its state.json will be known.
  /// Shard 0 comes first, unless it is whole already.
  void begin_shard(int64_t shard, std::string raw_key);
  /// The next record batch, as the raw shard has it.
  void add(std::shared_ptr<arrow::RecordBatch> batch);
  /// After the last batch. The rest is done while the raw shard is completed.
  void finish_shard();
  /// The raw shards are begun again with other types.
  void restart();

 private:
  OnePass(const ImportDatasetOptions& options, std::string dataset,
          std::unique_ptr<store::Claim> claim);

  void give_up(const Error& why);
  Result<bool> open_shard(const arrow::RecordBatch& first);
  Result<bool> add_batch(std::shared_ptr<arrow::RecordBatch> batch);
  Result<bool> take_piece();
  Result<> complete_shard();
  void drop_shard();
  void settle();

  const ImportDatasetOptions& options_;
  const std::string dataset_;
  const std::unique_ptr<store::Claim> claim_;
  const PieceLimits limits_;
  bool given_up_ = false;
  std::optional<StandardRules> rules_;  ///< once the first rows are known
  int64_t malformed_ = 0;               ///< rows, in all shards

  // The shard at hand; no number: none, or one that is left to the stage.
  std::optional<int64_t> number_;
  std::string raw_key_;
  int64_t rows_ = 0;  ///< that have come
  std::unique_ptr<StandardShard> shard_;
  std::deque<int64_t> sizes_;  ///< bytes of the pieces that the workers have
  int64_t in_flight_ = 0;
  data::OrderedWork<StandardPiece> workers_;
  std::future<Result<>> completed_;  ///< of the shard at hand, after `finish_shard`
};

}  // namespace lorry::stages
