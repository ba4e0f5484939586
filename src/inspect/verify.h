// `lorry verify`: is every file in the bucket still what was written?
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "store/bucket.h"

namespace lorry::inspect {

struct VerifyOptions {
  std::shared_ptr<store::Bucket> bucket;
  std::string dataset, model;  ///< only what belongs to these; empty: all
  /// Takes the marks of completion away from what is damaged, so that the stage's own command makes
  /// just that again.
  bool repair = false;
  bool wait = true;  ///< with `repair`, while others are at work on what is damaged
  int threads = 0;   ///< 0: eight, which keeps a network busy as well as a disk
  /// Called from the workers, one at a time.
  std::function<void(int64_t bytes, int64_t bytes_total)> progress;
};

/// A file, shard or stage that is not as it was recorded.
struct Damage {
  std::string path;
  std::string what;  ///< "missing", "1,024 bytes, not 2,048", ...
  std::string mend;  ///< the command that makes it again
};

struct VerifyReport {
  int64_t files = 0;  ///< read and found as recorded
  int64_t bytes = 0;
  int64_t unchecked = 0;  ///< files without a recorded checksum (written by other programs)
  std::vector<Damage> damages;
};

/// Compares size and checksum of each file of each complete stage and model with what its manifest
/// recorded: state.json of a shard, info.json of a model or a finished training. Stages without
/// info.json are unfinished work, not damage. Fails only where the bucket cannot be read.
Result<VerifyReport> verify(const VerifyOptions& options);

Json to_json(const VerifyReport& report);

}  // namespace lorry::inspect
