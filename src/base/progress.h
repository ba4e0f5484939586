// How far a long stage has come, with rate and time left, on stderr.
//
// On a terminal one line is redrawn in place; elsewhere a plain line appears every ten seconds and
// at the end. Stages that run side by side share the line. Messages of base/log.h go between.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace lorry {

/// kOff: nothing (`--quiet`); kPlain: lines now and then; kLive: one line redrawn (a terminal).
enum class ProgressMode { kOff, kPlain, kLive };
void set_progress_mode(ProgressMode mode);
ProgressMode progress_mode();

/// One stage. `add` and `set` may be called from any thread, often: they cost an atomic operation
/// and a look at the clock. The destructor takes the stage off the line.
class Progress {
 public:
  /// `unit` in the plural: "rows", "bytes" (printed as MB), "tokens". `total` 0: unknown.
  Progress(std::string stage, std::string unit, int64_t total = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void set_total(int64_t total);
  /// What was done before this run: counted as done, not in the rate.
  void set_start(int64_t done);
  void add(int64_t n);
  void set(int64_t done);
  /// The last line ("pretokenize: 1,000 rows in 2.0 s, 500 rows/s"); later calls do nothing.
  void finish();

 private:
  struct Impl;
  struct Board;
  std::shared_ptr<Impl> impl_;
};

/// "12 s", "3 min 5 s", "2 h 5 min".
std::string format_duration(double seconds);
/// "1,234,567".
std::string format_count(int64_t n);
/// "512 B", "12.3 MB", "4.5 GB" (powers of 1000).
std::string format_bytes(double bytes);
/// "pretokenize: 500 of 1,000 rows (50%), 250 rows/s, 2 s left". `start` is what an earlier run had
/// done.
std::string format_progress(std::string_view stage, std::string_view unit, int64_t done,
                            int64_t start, int64_t total, double seconds);

}  // namespace lorry
