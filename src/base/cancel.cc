#include "base/cancel.h"

#include <atomic>
#include <csignal>

namespace lorry {
namespace {

std::atomic<int> g_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "written from a signal handler");

void on_signal(int signal) {
  g_signal.store(signal);
  std::signal(signal, SIG_DFL);  // the second one ends the process
}

}  // namespace

void install_cancel_handlers() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

int cancel_signal() { return g_signal.load(std::memory_order_relaxed); }
void request_cancel(int signal) { g_signal.store(signal); }
void reset_cancel() { g_signal.store(0); }

Result<> check_cancelled() {
  if (!cancel_requested()) return {};
  return cancelled("stopped by a signal; run the same command again to go on");
}

}  // namespace lorry
