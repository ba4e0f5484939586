#include "base/system_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

namespace lorry {
namespace {

namespace fs = std::filesystem;

/// The path of a line "4:memory:/path" (v1) or "0::/path" (v2) in /proc/self/cgroup.
std::string cgroup_path(const std::string& text, const std::string& controller) {
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

std::optional<int64_t> integer_in(const fs::path& path) {
  return parse_integer(read_system_file(path));
}

/// Files of one version of cgroups, and the line of memory.stat that says what can be dropped.
struct CgroupFiles {
  const char *controller, *limit, *used, *droppable;
};

void read_limits(const fs::path& root, const CgroupFiles& files, MachineMemory& memory) {
  for (const auto& directory : cgroup_directories(root, files.controller)) {
    const auto limit = integer_in(directory / files.limit);
    // "No limit" of version 1 is a number near 2^63.
    if (!limit || *limit <= 0 || (memory.total > 0 && *limit >= memory.total)) continue;
    if (memory.limit > 0 && memory.limit <= *limit) continue;
    const std::string stat = read_system_file(directory / "memory.stat");
    const int64_t droppable = parse_integer(system_field(stat, files.droppable, ' ')).value_or(0);
    memory.limit = *limit;
    memory.used = std::max<int64_t>(0, integer_in(directory / files.used).value_or(0) - droppable);
  }
}

}  // namespace

std::string read_system_file(const fs::path& path) {
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

std::string system_field(const std::string& text, std::string_view name, char separator) {
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

std::vector<fs::path> cgroup_directories(const fs::path& root, const std::string& controller) {
  const fs::path mount = root / "sys/fs/cgroup" / controller;
  std::string path = cgroup_path(read_system_file(root / "proc/self/cgroup"), controller);
  std::vector<fs::path> directories;
  for (;;) {
    while (path.ends_with('/')) path.pop_back();
    directories.push_back(mount / fs::path(path).relative_path());
    if (path.empty()) return directories;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
}

int64_t MachineMemory::free() const {
  return limit > 0 ? std::min(available, std::max<int64_t>(0, limit - used)) : available;
}

MachineMemory read_memory(const fs::path& root) {
  MachineMemory memory;
  const std::string meminfo = read_system_file(root / "proc/meminfo");
  const auto kilobytes = [&](std::string_view name) {
    return parse_integer(system_field(meminfo, name, ':')).value_or(0) * 1024;
  };
  memory.total = kilobytes("MemTotal");
  memory.available = kilobytes("MemAvailable");
  read_limits(root, {"", "memory.max", "memory.current", "inactive_file"}, memory);
  read_limits(root,
              {"memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"},
              memory);
  return memory;
}

}  // namespace lorry
