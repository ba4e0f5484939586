// Where the time of one training step goes, kernel by kernel: libtorch's profiler.
#pragma once

#include <c10/core/Device.h>

#include <chrono>
#include <string>
#include <vector>

#include "base/result.h"

namespace lorry::train {

/// What took time under one name: a kernel on a GPU; on a CPU an operator, without those it calls.
struct ProfileRow {
  std::string name;
  double seconds = 0;
  int64_t calls = 0;
};

/// Longest first. Lines of share of `wall_seconds`, milliseconds, calls, microseconds a call, name;
/// after `most` rows the others in one line.
std::string profile_table(std::vector<ProfileRow> rows, double wall_seconds, size_t most = 40);

/// Records what the calling thread, and autograd's for it, asks of the device from here to
/// `finish`. One at a time. The recording costs time itself: shares count, not the sum.
class StepProfile {
 public:
  /// Waits for the device, then begins.
  explicit StepProfile(at::Device device);

  /// Waits for the device; writes a trace that chrome://tracing and ui.perfetto.dev open to `path`,
  /// and returns the table. Unavailable if the file cannot be written.
  Result<std::string> finish(const std::string& path);

 private:
  at::Device device_;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace lorry::train
