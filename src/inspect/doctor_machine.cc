#include "inspect/doctor_machine.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sched.h>  // sched_getaffinity
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "base/progress.h"

namespace lorry::inspect {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMiB = int64_t{1} << 20, kGiB = int64_t{1} << 30;
/// Below this the smallest job fails; below that a model of a usual size does.
constexpr int64_t kLeastMemory = kGiB, kFewMemory = 4 * kGiB;
constexpr int64_t kLeastDisk = 64 * kMiB, kFewDisk = 5 * kGiB;

void take_quota(MachineFacts& machine, double cores) {
  if (cores > 0) machine.quota = machine.quota > 0 ? std::min(machine.quota, cores) : cores;
}

void read_quota(const fs::path& root, MachineFacts& machine) {
  for (const auto& directory : cgroup_directories(root, "")) {
    if (const auto cores = parse_cpu_max(read_system_file(directory / "cpu.max")))
      take_quota(machine, *cores);
  }
  for (const auto& directory : cgroup_directories(root, "cpu")) {
    const auto quota = parse_integer(read_system_file(directory / "cpu.cfs_quota_us"));
    const auto period = parse_integer(read_system_file(directory / "cpu.cfs_period_us"));
    if (quota && period && *quota > 0 && *period > 0)
      take_quota(machine, static_cast<double>(*quota) / static_cast<double>(*period));
  }
}

int count_allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return ::sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 0;
}

Finding cpu_finding(const MachineFacts& machine) {
  const auto has = [&](const char* flag) {
    return std::count(machine.flags.begin(), machine.flags.end(), flag) > 0;
  };
  std::string text = machine.cpu.empty() ? "unknown processor" : machine.cpu;
  const double usable = machine.quota > 0 ? std::min<double>(machine.quota, machine.allowed_cores)
                                          : machine.allowed_cores;
  text += fmt::format(", {:g} of {} cores usable", std::round(usable * 10) / 10, machine.cores);
  if (machine.quota > 0 && machine.quota < machine.allowed_cores) text += " (cgroup quota)";
  std::vector<std::string> sets;
  for (const auto& [flag, name] : {std::pair{"avx2", "AVX2"},
                                   {"avx512f", "AVX-512"},
                                   {"avx512_bf16", "AVX-512 bf16"},
                                   {"amx_bf16", "AMX bf16"},
                                   {"sse4_2", "CRC-32C"},
                                   {"sha_ni", "SHA"}})
    if (has(flag)) sets.emplace_back(name);
  text += fmt::format("; {}", sets.empty() ? "no vector instructions that lorry uses"
                                           : fmt::format("{}", fmt::join(sets, ", ")));
  if (!has("avx2"))
    return warn("cpu", text,
                "without AVX2 training and serving on the CPU are several times slower");
  return ok("cpu", text);
}

Finding memory_finding(const MachineFacts& machine) {
  const MachineMemory& memory = machine.memory;
  const int64_t total = memory.size(), free = memory.free();
  std::string text;
  if (memory.limit > 0) {
    text = fmt::format("{} of {} free (limit of the cgroup; the machine has {})",
                       format_bytes(double(free)), format_bytes(double(total)),
                       format_bytes(double(memory.total)));
  } else {
    text = fmt::format("{} of {} free", format_bytes(double(free)), format_bytes(double(total)));
  }
  if (total == 0) return warn("memory", "cannot be told: no /proc/meminfo here");
  if (free < kLeastMemory)
    return fail("memory", text, "end other programs or take a machine with more");
  if (free < kFewMemory)
    return warn("memory", text,
                "enough for data and small models; lorry plan says what yours needs");
  return ok("memory", text);
}

// ---- disks -------------------------------------------------------------------------------------

struct Place {
  std::string what;  ///< "$TMPDIR /tmp"
  fs::path path;
};

/// Writes a page and takes it away again; errno, or 0.
int try_write(const fs::path& directory) {
  std::string name = (directory / ".lorry-doctor-XXXXXX").string();
  const int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) return errno;
  const std::string page(64 << 10, 'x');
  const ssize_t n = ::write(fd, page.data(), page.size());
  int error = n < 0 ? errno : n < ssize_t(page.size()) ? ENOSPC : 0;
  if (error == 0 && ::fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) error = errno;
  ::close(fd);
  ::unlink(name.c_str());
  return error;
}

fs::path nearest_directory(fs::path path) {
  std::error_code error;
  path = fs::absolute(path, error);
  while (!fs::exists(path, error) && path.has_relative_path()) path = path.parent_path();
  return path;
}

Finding disk_finding(const std::string& what, const fs::path& path) {
  struct statvfs found {};
  if (::statvfs(path.c_str(), &found) != 0)
    return fail("disk", fmt::format("{}: {}", what, std::strerror(errno)),
                "make that folder, or name another one");
  const auto free = static_cast<int64_t>(found.f_bavail) * int64_t(found.f_frsize);
  const std::string text = fmt::format("{}: {} free", what, format_bytes(double(free)));
  const int error = try_write(path);
  const bool full = error == ENOSPC || error == EDQUOT || free < kLeastDisk ||
                    (found.f_files > 0 && found.f_favail == 0);
  if (full) {
    const char* why = free < kLeastDisk ? ""
                      : error == EDQUOT ? ", but the quota is used up"
                                        : ", but no file can be made";
    return fail("disk", fmt::format("{}{}: the disk is full", text, why),
                "free space there, or name a folder on another disk");
  }
  if (error != 0)
    return fail("disk", fmt::format("{}: cannot be written to: {}", what, std::strerror(error)),
                "name a folder that this user may write to");
  if (free < kFewDisk) return warn("disk", text, "a model of a usual size and its data need more");
  return ok("disk", text);
}

}  // namespace

std::optional<double> parse_cpu_max(std::string_view text) {
  const size_t space = text.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const auto quota = parse_integer(text.substr(0, space));
  const auto period = parse_integer(text.substr(space + 1));
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

MachineFacts read_machine(const fs::path& root) {
  MachineFacts machine;
  const std::string cpuinfo = read_system_file(root / "proc/cpuinfo");
  machine.cpu = system_field(cpuinfo, "model name", ':');
  std::istringstream flags(system_field(cpuinfo, "flags", ':'));
  for (std::string flag; flags >> flag;) machine.flags.push_back(flag);
  machine.cores = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  machine.allowed_cores = count_allowed_cores();
  machine.memory = read_memory(root);
  read_quota(root, machine);
  return machine;
}

Checked check_machine(const MachineFacts& machine) {
  return {{cpu_finding(machine), memory_finding(machine)}};
}

Checked check_disks(const std::string& temporary, const std::string& bucket) {
  std::vector<Place> places = {{"$TMPDIR " + temporary, temporary}};
  struct stat a {
  }, b{};
  const fs::path folder = bucket.empty() ? fs::path() : nearest_directory(bucket);
  Checked checked;
  if (!bucket.empty()) {
    // On one disk, one line.
    const bool same = ::stat(temporary.c_str(), &a) == 0 && ::stat(folder.c_str(), &b) == 0 &&
                      a.st_dev == b.st_dev;
    if (same)
      places.front().what += " and the bucket " + bucket;
    else
      places.push_back({"the bucket " + bucket, folder});
  }
  for (const auto& place : places) checked.findings.push_back(disk_finding(place.what, place.path));
  checked.facts = {{"bucket_disk_ok", checked.findings.back().health != Health::kFail}};
  return checked;
}

}  // namespace lorry::inspect
