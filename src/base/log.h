// Messages for people, on stderr. Results go to stdout, by cli/ only.
#pragma once

#include <fmt/format.h>

#include <string_view>

namespace lorry::log {

/// Messages below this level are not written. `--quiet` sets kWarn, `--verbose` kDebug.
enum class Level { kDebug, kInfo, kWarn, kError };
void set_level(Level level);

void write(Level level, std::string_view message);

/// Keeps `line` at the bottom of the terminal, cut to its width, below all messages; empty takes
/// it away. For base/progress.h, on a terminal only.
void set_status_line(std::string_view line);

template <typename... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kWarn, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace lorry::log
