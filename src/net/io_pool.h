// The threads that transfer in the background, and the memory that they share.
#pragma once

#include <cstdint>
#include <functional>

namespace lorry::net {

/// Runs `task` on one of the process's transfer threads, which are started as needed, at most
/// kMostTransfers. Tasks must not wait for other tasks. Thread-safe.
void run_in_background(std::function<void()> task);
inline constexpr int kMostTransfers = 32;

/// A share of the transfer memory (ranges.h), given back when it goes. Movable.
class MemoryShare {
 public:
  MemoryShare() = default;
  ~MemoryShare() { release(); }
  MemoryShare(MemoryShare&& other) noexcept : bytes_(other.bytes_) { other.bytes_ = 0; }
  MemoryShare& operator=(MemoryShare&& other) noexcept;

  /// Takes `bytes` if they are free; false, with nothing taken, if not.
  bool try_take(int64_t bytes);
  /// Takes them in any case: the one block that a transfer may always hold.
  void take(int64_t bytes);
  void release();

 private:
  int64_t bytes_ = 0;
};

}  // namespace lorry::net
