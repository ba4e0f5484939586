#include "inspect/doctor_checks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>  // a child ends with its parent
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/cancel.h"

namespace lorry::inspect {
namespace {

using Clock = std::chrono::steady_clock;

const char* health_name(Health health) {
  return health == Health::kOk ? "ok" : health == Health::kWarn ? "warn" : "fail";
}

Finding finding_from(const Json& json) {
  const std::string health = json.at("health");
  return {json.at("subject"),
          health == "ok"     ? Health::kOk
          : health == "warn" ? Health::kWarn
                             : Health::kFail,
          json.at("text"), json.value("advice", "")};
}

void write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

/// The child's life: what it says goes into the pipe, what libraries print goes nowhere.
[[noreturn]] void run_in_child(const Check& check, int out) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::signal(SIGINT, SIG_IGN);  // the parent decides
  ::signal(SIGTERM, SIG_DFL);
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd < 3; ++fd) ::dup2(null, fd);
  Checked checked;
  try {
    checked = check.run();
  } catch (const std::exception& e) {
    checked.findings = {fail(check.subject, e.what())};
  }
  Json json = {{"findings", Json::array()}, {"facts", std::move(checked.facts)}};
  for (const auto& finding : checked.findings) json["findings"].push_back(to_json(finding));
  write_all(out, dump_json(json));
  ::_exit(0);
}

class Child {
 public:
  explicit Child(const Check& check) : check_(check) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() { end(); }

  Result<> start() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0)
      return unavailable(fmt::format("cannot make a pipe: {}", std::strerror(errno)));
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(ends[0]);
      run_in_child(check_, ends[1]);
    }
    const int error = errno;
    ::close(ends[1]);
    fd_ = ends[0];
    if (pid_ < 0)
      return unavailable(fmt::format("cannot start a process: {}", std::strerror(error)));
    return {};
  }

  bool running() const { return fd_ >= 0 && !done_; }
  int fd() const { return fd_; }
  bool overdue() const { return seconds() > check_.seconds; }

  /// Takes what has come; at the end of it the child is done.
  void read() {
    char buffer[4096];
    const ssize_t n = ::read(fd_, buffer, sizeof(buffer));
    if (n > 0) output_.append(buffer, static_cast<size_t>(n));
    if (n == 0 || (n < 0 && errno != EINTR)) done_ = true;
  }

  void give_up() {
    gave_up_ = done_ = true;
    ::kill(pid_, SIGKILL);
  }

  Checked result() {
    end();
    if (gave_up_)
      return {{fail(check_.subject, fmt::format("no answer within {:.0f} s", check_.seconds),
                    check_.advice_if_stuck)}};
    const Json json = Json::parse(output_, nullptr, false);
    if (!json.is_object()) return {{fail(check_.subject, how_it_ended(), check_.advice_if_stuck)}};
    Checked checked;
    for (const auto& finding : json["findings"]) checked.findings.push_back(finding_from(finding));
    checked.facts = json["facts"];
    return checked;
  }

 private:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  std::string how_it_ended() const {
    if (WIFSIGNALED(status_))
      return fmt::format("whoever asks is killed ({})", ::strsignal(WTERMSIG(status_)));
    return fmt::format("the check ended with {} and no answer", WEXITSTATUS(status_));
  }

  void end() {
    if (pid_ <= 0) return;
    if (!done_) ::kill(pid_, SIGKILL);
    ::close(fd_);
    fd_ = -1;
    while (::waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
    }
    pid_ = 0;
  }

  const Check& check_;
  const Clock::time_point start_ = Clock::now();
  pid_t pid_ = 0;
  int fd_ = -1, status_ = 0;
  bool done_ = false, gave_up_ = false;
  std::string output_;
};

/// Waits for something to read, for a moment at most.
void wait_for_any(const std::vector<std::unique_ptr<Child>>& children) {
  std::vector<pollfd> fds;
  for (const auto& child : children)
    if (child->running()) fds.push_back({child->fd(), POLLIN, 0});
  if (::poll(fds.data(), fds.size(), 100) <= 0) return;
  size_t i = 0;
  for (const auto& child : children)
    if (child->running() && fds[i++].revents != 0) child->read();
}

}  // namespace

Result<std::vector<Checked>> run_checks(const std::vector<Check>& checks) {
  std::vector<std::unique_ptr<Child>> children;
  for (const auto& check : checks) {
    children.push_back(std::make_unique<Child>(check));
    LORRY_TRY(children.back()->start());
  }
  const auto running = [](const auto& child) { return child->running(); };
  while (std::any_of(children.begin(), children.end(), running)) {
    LORRY_TRY(check_cancelled());
    wait_for_any(children);
    for (const auto& child : children)
      if (child->running() && child->overdue()) child->give_up();
  }
  std::vector<Checked> results;
  for (const auto& child : children) results.push_back(child->result());
  return results;
}

Finding ok(std::string subject, std::string text) {
  return {std::move(subject), Health::kOk, std::move(text), {}};
}
Finding warn(std::string subject, std::string text, std::string advice) {
  return {std::move(subject), Health::kWarn, std::move(text), std::move(advice)};
}
Finding fail(std::string subject, std::string text, std::string advice) {
  return {std::move(subject), Health::kFail, std::move(text), std::move(advice)};
}

Json to_json(const Finding& finding) {
  Json json = {{"subject", finding.subject},
               {"health", health_name(finding.health)},
               {"text", finding.text}};
  if (!finding.advice.empty()) json["advice"] = finding.advice;
  return json;
}

}  // namespace lorry::inspect
