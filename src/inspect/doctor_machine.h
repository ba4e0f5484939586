// Processor, memory and disk, as far as this process may use them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/system_files.h"
#include "inspect/doctor_checks.h"

namespace lorry::inspect {

/// Bytes and cores. What a container may use is often less than what the machine has.
struct MachineFacts {
  std::string cpu;                 ///< "AMD EPYC 9554 64-Core Processor"
  std::vector<std::string> flags;  ///< of /proc/cpuinfo: "avx2", ...
  int cores = 0;                   ///< that are online
  int allowed_cores = 0;           ///< that this process may run on
  double quota = 0;                ///< cores' worth of time that its cgroup gets; 0: no limit
  MachineMemory memory;
};

/// Reads /proc and /sys below `root`; both versions of cgroups. What cannot be read stays 0.
MachineFacts read_machine(const std::filesystem::path& root = "/");

/// Cores' worth from cgroup v2's cpu.max ("150000 100000"); nullopt for "max 100000" and nonsense.
std::optional<double> parse_cpu_max(std::string_view text);

Checked check_machine(const MachineFacts& machine);

/// What $TMPDIR and a local bucket have left, and whether they can be written to. A bucket that is
/// not there yet is looked at through the nearest folder above it. `bucket` is empty for a remote
/// one. Facts: {bucket_disk_ok: bool}.
Checked check_disks(const std::string& temporary, const std::string& bucket);

}  // namespace lorry::inspect
