#include "store/claim_process.h"

#include <signal.h>  // kill(pid, 0)
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <optional>
#include <sstream>

namespace lorry::store {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/// Of /proc/{pid}/stat (proc(5)).
struct Stat {
  char state = '?';
  int64_t threads = 0, start = 0;
};

std::optional<Stat> read_stat(int64_t pid) {
  const std::string line = first_line("/proc/" + std::to_string(pid) + "/stat");
  const size_t end_of_name = line.rfind(')');  // the name may hold spaces and parentheses
  if (end_of_name == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(end_of_name + 1));
  Stat stat;
  std::string skipped;
  fields >> stat.state;  // field 3
  for (int field = 4; field < 20; ++field) fields >> skipped;
  fields >> stat.threads >> skipped >> stat.start;  // fields 20 and 22
  if (!fields) return std::nullopt;
  return stat;
}

std::string this_machine() {
  const std::string boot = first_line("/proc/sys/kernel/random/boot_id");
  char name_space[64] = {};
  const ssize_t size = ::readlink("/proc/self/ns/pid", name_space, sizeof(name_space) - 1);
  if (boot.empty() || size <= 0) return {};
  return boot + " " + name_space;
}

}  // namespace

ProcessId ProcessId::self() {
  ProcessId self;
  char host[256] = {};
  (void)::gethostname(host, sizeof(host) - 1);
  self.host = host;
  self.machine = this_machine();
  self.pid = ::getpid();
  if (const auto stat = read_stat(self.pid)) self.start = stat->start;
  return self;
}

bool is_gone(const ProcessId& process) {
  static const std::string here = this_machine();
  if (here.empty() || process.machine != here || process.pid <= 0) return false;
  if (::kill(pid_t(process.pid), 0) != 0 && errno == ESRCH) return true;
  const auto stat = read_stat(process.pid);
  if (!stat) return false;
  // Killed and not yet waited for by its parent; other threads of it may still be ending.
  if ((stat->state == 'Z' || stat->state == 'X') && stat->threads <= 1) return true;
  return process.start != 0 && stat->start != process.start;
}

double seconds_since_boot() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return double(now.tv_sec) + double(now.tv_nsec) * 1e-9;
}

}  // namespace lorry::store
