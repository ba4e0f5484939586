#include "base/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <mutex>
#include <vector>

#include "base/log.h"

namespace lorry {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kLiveMicros = 200'000;
constexpr int64_t kPlainMicros = 10'000'000;

int64_t now_micros() {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now().time_since_epoch())
      .count();
}

std::atomic<ProgressMode> g_mode{ProgressMode::kOff};

/// "250 rows", or "1.2 MB" where the unit is bytes.
std::string amount(int64_t n, std::string_view unit) {
  if (unit == "bytes") return format_bytes(static_cast<double>(n));
  return fmt::format("{} {}", format_count(n), unit);
}

/// "250 rows/s", "3.5 rows/s".
std::string per_second(double rate, std::string_view unit) {
  if (unit == "bytes") return format_bytes(rate) + "/s";
  if (rate > 0 && rate < 9.95) return fmt::format("{:.1f} {}/s", rate, unit);
  return fmt::format("{} {}/s", format_count(std::llround(rate)), unit);
}

}  // namespace

struct Progress::Impl {
  std::string stage, unit;
  std::atomic<int64_t> total{0}, start{0}, done{0};
  int64_t began = now_micros();
  std::atomic<int64_t> next_draw{0};
  std::atomic<bool> finished{false};

  double seconds() const { return 1e-6 * static_cast<double>(now_micros() - began); }
  std::string line() const { return format_progress(stage, unit, done, start, total, seconds()); }
  void tick();
};

/// The stages that are under way, in the order in which they began.
struct Progress::Board {
  std::mutex mutex;
  std::vector<Impl*> stages;

  static Board& get() {
    static Board board;
    return board;
  }
  /// Caller holds the mutex.
  void draw_live() const {
    std::string line;
    for (const Impl* stage : stages) {
      if (!line.empty()) line += " | ";
      line += stage->line();
    }
    log::set_status_line(line);
  }
};

void Progress::Impl::tick() {
  const ProgressMode mode = g_mode.load(std::memory_order_relaxed);
  if (mode == ProgressMode::kOff) return;
  const int64_t now = now_micros();
  int64_t due = next_draw.load(std::memory_order_relaxed);
  if (now < due) return;
  const int64_t next = now + (mode == ProgressMode::kLive ? kLiveMicros : kPlainMicros);
  if (!next_draw.compare_exchange_strong(due, next)) return;  // another thread draws
  Board& board = Board::get();
  std::lock_guard lock(board.mutex);
  if (mode == ProgressMode::kLive)
    board.draw_live();
  else
    log::info("{}", line());
}

void set_progress_mode(ProgressMode mode) { g_mode.store(mode); }
ProgressMode progress_mode() { return g_mode.load(); }

Progress::Progress(std::string stage, std::string unit, int64_t total)
    : impl_(std::make_shared<Impl>()) {
  impl_->stage = std::move(stage);
  impl_->unit = std::move(unit);
  impl_->total = total;
  if (g_mode.load() != ProgressMode::kLive) impl_->next_draw = now_micros() + kPlainMicros;
  Board& board = Board::get();
  std::lock_guard lock(board.mutex);
  board.stages.push_back(impl_.get());
}

Progress::~Progress() {
  Board& board = Board::get();
  std::lock_guard lock(board.mutex);
  std::erase(board.stages, impl_.get());
  if (g_mode.load() == ProgressMode::kLive) board.draw_live();
}

void Progress::set_total(int64_t total) { impl_->total = total; }

void Progress::set_start(int64_t done) {
  impl_->start = done;
  impl_->done = done;
}

void Progress::add(int64_t n) {
  impl_->done.fetch_add(n, std::memory_order_relaxed);
  impl_->tick();
}

void Progress::set(int64_t done) {
  impl_->done.store(done, std::memory_order_relaxed);
  impl_->tick();
}

void Progress::finish() {
  if (impl_->finished.exchange(true)) return;
  {
    Board& board = Board::get();
    std::lock_guard lock(board.mutex);
    std::erase(board.stages, impl_.get());
    if (g_mode.load() == ProgressMode::kLive) board.draw_live();
  }
  if (g_mode.load() == ProgressMode::kOff) return;
  const int64_t done = impl_->done;
  const double seconds = impl_->seconds();
  const double rate = static_cast<double>(done - impl_->start) / std::max(seconds, 1e-6);
  log::info("{}: {} in {}, {}", impl_->stage, amount(done, impl_->unit), format_duration(seconds),
            per_second(rate, impl_->unit));
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0)) seconds = 0;
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  const int64_t s = std::llround(seconds);
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {} s", s / 60, s % 60);
  return fmt::format("{} h {} min", s / 3600, s % 3600 / 60);
}

std::string format_count(int64_t n) {
  std::string digits = std::to_string(n);
  const size_t first = n < 0 ? 1 : 0;
  for (size_t i = digits.size(); i > first + 3; i -= 3) digits.insert(i - 3, 1, ',');
  return digits;
}

std::string format_bytes(double bytes) {
  if (bytes < 1000) return fmt::format("{:.0f} B", bytes);
  static constexpr const char* kUnits[] = {"kB", "MB", "GB", "TB"};
  int unit = 0;
  for (bytes /= 1000; bytes >= 999.95 && unit < 3; ++unit) bytes /= 1000;
  return fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

std::string format_progress(std::string_view stage, std::string_view unit, int64_t done,
                            int64_t start, int64_t total, double seconds) {
  const double rate = static_cast<double>(done - start) / std::max(seconds, 1e-6);
  const std::string so_far = amount(done, unit);
  if (total <= 0) return fmt::format("{}: {}, {}", stage, so_far, per_second(rate, unit));
  const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  std::string line =
      unit == "bytes"
          ? fmt::format("{}: {} of {}", stage, so_far, format_bytes(static_cast<double>(total)))
          : fmt::format("{}: {} of {} {}", stage, format_count(done), format_count(total), unit);
  line += fmt::format(" ({:.0f}%), {}", std::floor(100 * share), per_second(rate, unit));
  if (done > start && done < total)
    line += fmt::format(", {} left", format_duration(static_cast<double>(total - done) / rate));
  return line;
}

}  // namespace lorry
