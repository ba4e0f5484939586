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
#include "store/bucket.h"

namespace lorry::pipeline {

struct StandardizeOptions {
  std::shared_ptr<store::Bucket> bucket;
  std::string dataset;
  /// "" or "auto", "sharegpt", "messages" (or "openai"), "alpaca", "prompt-completion", "text".
  std::string format;
  /// {role of the column, its name in the source}: {"prompt", "question"}.
  std::vector<std::pair<std::string, std::string>> columns;
  /// {{name}} in every string becomes the value.
  std::vector<std::pair<std::string, std::string>> placeholders;
  /// Rows that cannot be understood (an unknown role) to tolerate; each is reported.
  int64_t skip_bad_rows = 0;
  /// Standardise again even if nothing changed.
  bool fresh = false;
  int threads = 0;  ///< 0 takes the machine's
  /// Called between batches from the calling thread.
  std::function<void(int64_t rows, int64_t rows_total)> progress;
};

struct StandardizeReport {
  int64_t rows_in = 0;
  int64_t rows = 0;
  int64_t shards = 0;
  std::string format;                      ///< what the rows were understood as
  std::map<std::string, int64_t> dropped;  ///< reason -> rows
  bool up_to_date = false;
  double seconds = 0;
};

/// Writes standardized/{dataset}/{shard}/ for each raw shard, then info.json. Fails with not found
/// if the raw shards are not complete, with invalid input if the columns are not understood.
Result<StandardizeReport> standardize(const StandardizeOptions& options);

}  // namespace lorry::pipeline
