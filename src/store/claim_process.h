// Which process is this, and does that one still live? For claims (claim.h).
#pragma once

#include <cstdint>
#include <string>

namespace lorry::store {

/// A process, told apart from any other that ever had its number.
struct ProcessId {
  std::string host;     ///< for people
  std::string machine;  ///< boot id and pid namespace; empty where the kernel does not tell
  int64_t pid = 0;
  int64_t start = 0;  ///< clock ticks since boot; 0: not known

  static ProcessId self();
};

/// False unless it is known: a process of another machine, boot or container may live.
bool is_gone(const ProcessId& process);

/// Seconds since boot, those asleep included.
double seconds_since_boot();

}  // namespace lorry::store
