// metrics.jsonl while a run goes on: a part for each checkpoint, joined when the run is published.
// So a checkpoint writes the lines since the last one, however long the run is.
//
// A part "000000100-000000200.jsonl" holds the lines of the steps 101 to 200. Parts follow one
// another without a gap from step 0 on.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "store/bucket.h"

namespace lorry::train {

/// The parts in one directory of the bucket. Not thread-safe.
class MetricsParts {
 public:
  MetricsParts(std::shared_ptr<store::Bucket> bucket, std::string dir)
      : bucket_(std::move(bucket)), dir_(std::move(dir)) {}

  const std::string& dir() const { return dir_; }

  /// Writes the lines of the steps after `begin` up to `end`; nothing if there are none.
  Result<> write(int64_t begin, int64_t end, std::string_view lines) const;
  /// Removes what was written after the checkpoint of `step`, by a process that was killed before
  /// it committed the next.
  Result<> remove_after(int64_t step) const;
  /// Calls use(lines) for the parts up to `last_step` in order. Corrupt data if one is missing.
  Result<> for_each(int64_t last_step, const std::function<Result<>(std::string_view)>& use) const;

 private:
  struct Part {
    int64_t begin = 0, end = 0;
    std::string path;
  };
  Result<std::vector<Part>> list() const;

  std::shared_ptr<store::Bucket> bucket_;
  std::string dir_;
};

}  // namespace lorry::train
