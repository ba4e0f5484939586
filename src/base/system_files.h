// What Linux says of a process's machine in small files below /proc and /sys.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lorry {

/// "" if it cannot be read.
std::string read_system_file(const std::filesystem::path& path);

/// The number that `text` begins with, after spaces.
std::optional<int64_t> parse_integer(std::string_view text);

/// The value of the first line "name : value" or "name value".
std::string system_field(const std::string& text, std::string_view name, char separator);

/// This process's directories in a hierarchy of cgroups, from its own up to the root: each may set
/// a limit. `controller`: "cpu" or "memory" of version 1; "" for version 2.
std::vector<std::filesystem::path> cgroup_directories(const std::filesystem::path& root,
                                                      const std::string& controller);

/// Bytes. What a container may use is often less than what the machine has.
struct MachineMemory {
  int64_t total = 0;      ///< of the machine
  int64_t available = 0;  ///< without swapping
  int64_t limit = 0;      ///< of the cgroup; 0: none
  int64_t used = 0;       ///< by the cgroup, without what can be dropped

  /// Of the container, or of the machine where nothing limits it.
  int64_t size() const { return limit > 0 ? limit : total; }
  /// What this process may still take; 0: not known.
  int64_t free() const;
};

/// Reads /proc and /sys below `root`; both versions of cgroups. What cannot be read stays 0.
MachineMemory read_memory(const std::filesystem::path& root = "/");

}  // namespace lorry
