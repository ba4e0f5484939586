#include "base/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <mutex>
#include <string>

namespace lorry::log {
namespace {

spdlog::logger& logger() {
  static const auto instance = [] {
    auto made = spdlog::stderr_logger_mt("lorry");
    made->set_pattern("%v");
    made->set_level(spdlog::level::info);
    return made;
  }();
  return *instance;
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

std::string_view prefix(Level level) {
  switch (level) {
    case Level::kWarn:
      return "warning: ";
    case Level::kError:
      return "error: ";
    default:
      return "";
  }
}

/// The line that stays at the bottom, and who may draw.
std::mutex g_screen_mutex;
std::string g_status_line;

size_t terminal_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void erase_status_line() {
  if (!g_status_line.empty()) std::fputs("\r\x1b[K", stderr);
}

void draw_status_line() {
  if (g_status_line.empty()) return;
  std::fprintf(stderr, "\r\x1b[K%s", g_status_line.substr(0, terminal_width() - 1).c_str());
  std::fflush(stderr);
}

}  // namespace

void set_level(Level level) { logger().set_level(to_spdlog(level)); }

void write(Level level, std::string_view message) {
  std::lock_guard lock(g_screen_mutex);
  if (!logger().should_log(to_spdlog(level))) return;
  erase_status_line();
  logger().log(to_spdlog(level), "{}{}", prefix(level), message);
  logger().flush();
  draw_status_line();
}

void set_status_line(std::string_view line) {
  std::lock_guard lock(g_screen_mutex);
  if (line.empty()) erase_status_line();
  g_status_line = line;
  draw_status_line();
}

}  // namespace lorry::log
