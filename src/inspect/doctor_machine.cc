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
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/progress.h"

namespace lorry::inspect {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMiB = int64_t{1} << 20, kGiB = int64_t{1} << 30;
/// Below this the smallest job fails; below that a model of a usual size does.
constexpr int64_t kLeastMemory = kGiB, kFewMemory = 4 * kGiB;
constexpr int64_t kLeastDisk = 64 * kMiB, kFewDisk = 5 * kGiB;

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return file ? text.str() : std::string();
}

std::optional<int64_t> parse_integer(std::string_view text) {
  int64_t value = 0;
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return std::nullopt;
  text.remove_prefix(begin);
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc{}) return std::nullopt;
  return value;
}

std::optional<int64_t> integer_in(const fs::path& path) { return parse_integer(read_file(path)); }

/// The value of the first line "name : value" or "name value".
std::string field(const std::string& text, std::string_view name, char separator) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name)) continue;
    size_t at = line.find(separator, name.size());
    if (at == std::string::npos) continue;
    at = line.find_first_not_of(" \t", at + 1);
    return at == std::string::npos ? "" : line.substr(at);
  }
  return {};
}

int64_t kilobytes(const std::string& meminfo, std::string_view name) {
  return parse_integer(field(meminfo, name, ':')).value_or(0) * 1024;
}

/// This process's directories in a hierarchy, from its own up to the root: each may set a limit.
std::vector<fs::path> cgroup_directories(const fs::path& mount, std::string path) {
  std::vector<fs::path> directories;
  for (;;) {
    while (path.ends_with('/')) path.pop_back();
    directories.push_back(mount / fs::path(path).relative_path());
    if (path.empty()) return directories;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
}

/// The path of a line "4:memory:/path" (v1) or "0::/path" (v2) in /proc/self/cgroup.
std::string cgroup_path(const std::string& text, std::string_view controller) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const auto names = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    const bool unified = names == ",,";
    if (controller.empty() ? unified : names.find(fmt::format(",{},", controller)) != names.npos)
      return line.substr(second + 1);
  }
  return {};
}

void take_quota(MachineFacts& machine, double cores) {
  if (cores > 0) machine.quota = machine.quota > 0 ? std::min(machine.quota, cores) : cores;
}

void take_memory(MachineFacts& machine, int64_t limit, int64_t used, int64_t droppable) {
  // "No limit" of version 1 is a number near 2^63.
  if (limit <= 0 || (machine.memory > 0 && limit >= machine.memory)) return;
  if (machine.memory_limit > 0 && machine.memory_limit <= limit) return;
  machine.memory_limit = limit;
  machine.memory_used = std::max<int64_t>(0, used - droppable);
}

int64_t droppable(const fs::path& directory, std::string_view name) {
  return parse_integer(field(read_file(directory / "memory.stat"), name, ' ')).value_or(0);
}

void read_cgroups(const fs::path& root, MachineFacts& machine) {
  const std::string own = read_file(root / "proc/self/cgroup");
  const fs::path mount = root / "sys/fs/cgroup";
  for (const auto& directory : cgroup_directories(mount, cgroup_path(own, ""))) {
    if (const auto cores = parse_cpu_max(read_file(directory / "cpu.max")))
      take_quota(machine, *cores);
    if (const auto limit = integer_in(directory / "memory.max"))
      take_memory(machine, *limit, integer_in(directory / "memory.current").value_or(0),
                  droppable(directory, "inactive_file"));
  }
  for (const auto& directory : cgroup_directories(mount / "cpu", cgroup_path(own, "cpu"))) {
    const auto quota = integer_in(directory / "cpu.cfs_quota_us");
    const auto period = integer_in(directory / "cpu.cfs_period_us");
    if (quota && period && *quota > 0 && *period > 0)
      take_quota(machine, static_cast<double>(*quota) / static_cast<double>(*period));
  }
  for (const auto& directory : cgroup_directories(mount / "memory", cgroup_path(own, "memory")))
    if (const auto limit = integer_in(directory / "memory.limit_in_bytes"))
      take_memory(machine, *limit, integer_in(directory / "memory.usage_in_bytes").value_or(0),
                  droppable(directory, "total_inactive_file"));
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
  int64_t total = machine.memory, free = machine.available;
  std::string text;
  if (machine.memory_limit > 0) {
    total = machine.memory_limit;
    free = std::min(free, machine.memory_limit - machine.memory_used);
    text = fmt::format("{} of {} free (limit of the cgroup; the machine has {})",
                       format_bytes(double(free)), format_bytes(double(total)),
                       format_bytes(double(machine.memory)));
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
  const std::string cpuinfo = read_file(root / "proc/cpuinfo");
  machine.cpu = field(cpuinfo, "model name", ':');
  std::istringstream flags(field(cpuinfo, "flags", ':'));
  for (std::string flag; flags >> flag;) machine.flags.push_back(flag);
  machine.cores = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  machine.allowed_cores = count_allowed_cores();
  const std::string meminfo = read_file(root / "proc/meminfo");
  machine.memory = kilobytes(meminfo, "MemTotal");
  machine.available = kilobytes(meminfo, "MemAvailable");
  read_cgroups(root, machine);
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
