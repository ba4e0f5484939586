// `lorry import-dataset`: files of any supported format into raw shards (and standardized ones).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "sources/sources.h"
#include "stages/shard_work.h"
#include "stages/standardize.h"
#include "store/bucket.h"

namespace lorry::stages {

/// `skip_bad_rows`: malformed rows of text, each reported; other rows cannot be left out. The
/// options about rows are used by standardisation alone.
struct ImportDatasetOptions : ShardWorkOptions, data::RowOptions {
  std::shared_ptr<store::Bucket> bucket;
  /// Files, directories, globs, URLs, Hub ids (sources.h). Their files are read in this order;
  /// within a directory or a glob by name.
  std::vector<std::string> sources;
  /// --config, --split and --revision of a data set of the Hub.
  sources::HubOptions hub;
  /// Name in the bucket; empty: default_dataset_name of the first source.
  std::string dataset;
  /// Rows a shard at most. Smaller shards resume with less repeated work.
  int64_t shard_examples = 5'000'000;
  /// Go on to standardized/ when the raw shards are there.
  bool standardize = true;

  /// Called between batches, from the calling thread only: rows so far, bytes of the source so far
  /// and in all.
  std::function<void(int64_t rows, int64_t bytes_done, int64_t bytes_total)> progress;
  /// As `progress`, for the standardisation that follows: rows of the raw shards.
  std::function<void(int64_t rows, int64_t rows_total)> standardize_progress;
};

struct ImportDatasetReport {
  std::string dataset;
  int64_t rows = 0;
  int64_t shards = 0;
  int64_t bytes = 0;        ///< of the source files, as stored
  int64_t dropped = 0;      ///< malformed rows that were skipped
  bool up_to_date = false;  ///< nothing had changed, nothing was done
  bool complete = true;     ///< false: `missing` shards are other nodes' and not there yet
  int64_t missing = 0;
  double seconds = 0;
  std::string digest;              ///< digest_of_info of the raw shards
  StandardizeReport standardized;  ///< empty with standardize = false
};

/// Writes raw/{dataset}/{shard}/ and info.json, then (unless told not to) standardized/. Goes on
/// from the last whole shard of an interrupted run; the bytes are those of an undisturbed one.
/// Does nothing when sources and options are those of the finished import.
Result<ImportDatasetReport> import_dataset(const ImportDatasetOptions& options);

}  // namespace lorry::stages
