// `lorry standardize`: raw shards into shards with a `conversations` column (or `text`).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "data/row_rules.h"
#include "stages/shard_work.h"
#include "store/bucket.h"

namespace lorry::stages {

struct StandardizeOptions : ShardWorkOptions, data::RowOptions {
  std::shared_ptr<store::Bucket> bucket;
  std::string dataset;
  /// Called between batches from the calling thread.
  std::function<void(int64_t rows, int64_t rows_total)> progress;
  /// digest_of_info of the raw shards that are meant; empty: whatever is there.
  std::string expected_input;
};

struct StandardizeReport {
  int64_t rows_in = 0;
  int64_t rows = 0;
  int64_t shards = 0;
  int64_t missing = 0;    ///< shards that other nodes have not made yet
  bool complete = false;  ///< every shard is there, and info.json
  std::string format;     ///< a name of `--format`
  std::string parts;      ///< which columns play which part, for people
  std::vector<std::string> unused_columns;
  std::map<std::string, int64_t> dropped;  ///< reason -> rows
  std::map<std::string, int64_t> noted;    ///< of rows that were kept
  bool up_to_date = false;
  double seconds = 0;
  std::string digest;          ///< digest_of_info of the output
  bool input_changed = false;  ///< it is not `expected_input`: nothing was done
};

/// Writes standardized/{dataset}/{shard}/ for each raw shard of this process's part, then info.json
/// if all parts are there. Goes on after the last whole shard of an earlier run. Fails with not
/// found if the raw shards are not complete, with invalid input if the columns are not understood,
/// a row is malformed or too many are left out.
Result<StandardizeReport> standardize(const StandardizeOptions& options);

}  // namespace lorry::stages
