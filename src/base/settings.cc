#include "base/settings.h"

#include <fmt/format.h>
#include <unistd.h>  // __environ

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

namespace lorry {
namespace {

constexpr std::string_view kSpace = " \t\r";

std::string_view trim(std::string_view s) {
  const size_t begin = s.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return s.substr(begin, s.find_last_not_of(kSpace) - begin + 1);
}

bool is_name(std::string_view s) {
  if (s.empty() || (s[0] >= '0' && s[0] <= '9')) return false;
  for (char c : s) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter && !(c >= '0' && c <= '9') && c != '_') return false;
  }
  return true;
}

/// The inside of a quoted value; `rest` becomes what follows the closing quote. nullopt: no end.
std::optional<std::string> unquote(std::string_view value, std::string_view& rest) {
  const char quote = value[0];
  std::string out;
  for (size_t i = 1; i < value.size(); ++i) {
    char c = value[i];
    if (c == quote) {
      rest = trim(value.substr(i + 1));
      return out;
    }
    if (quote == '"' && c == '\\' && i + 1 < value.size()) {
      c = value[++i];
      if (c == 'n')
        c = '\n';
      else if (c == 't')
        c = '\t';
      else if (c != '"' && c != '\\')
        out += '\\';
    }
    out += c;
  }
  return std::nullopt;
}

std::string_view without_comment(std::string_view value) {
  for (size_t i = 0; i < value.size(); ++i)
    if (value[i] == '#' && (i == 0 || kSpace.find(value[i - 1]) != std::string_view::npos))
      return trim(value.substr(0, i));
  return value;
}

/// The value of one line, or what is wrong with it.
Result<std::string> parse_value(std::string_view value) {
  if (value.empty() || (value[0] != '"' && value[0] != '\''))
    return std::string(without_comment(value));
  std::string_view rest;
  auto inside = unquote(value, rest);
  if (!inside) return invalid_input("a quoted value must end on its line");
  if (!rest.empty() && rest[0] != '#')
    return invalid_input("there is text behind the closing quote");
  return *std::move(inside);
}

}  // namespace

Result<std::vector<DotenvLine>> parse_dotenv(std::string_view text, std::string_view what) {
  std::vector<DotenvLine> lines;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    std::string_view line = trim(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty() || line[0] == '#') continue;
    if (line.starts_with("export ") || line.starts_with("export\t")) line = trim(line.substr(7));
    const size_t equals = line.find('=');
    const std::string_view name = trim(line.substr(0, equals));
    if (equals == std::string_view::npos || !is_name(name))
      return invalid_input(fmt::format("{} line {}: expected NAME=value", what, number));
    auto value = parse_value(trim(line.substr(equals + 1)));
    if (!value.ok())
      return invalid_input(
          fmt::format("{} line {}: {}: {}", what, number, name, value.error().message));
    lines.push_back({std::string(name), *std::move(value), number});
  }
  return lines;
}

Result<Settings> Settings::load(const std::string& directory) {
  Settings settings;
  // glibc's own name: its alias `environ` is empty in a program linked against stubs, as the wheel
  // is.
  for (char** entry = __environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view pair = *entry;
    const size_t equals = pair.find('=');
    if (equals == std::string_view::npos) continue;
    settings.environment_.emplace(pair.substr(0, equals), pair.substr(equals + 1));
  }
  const std::string path = directory == "." ? ".env" : directory + "/.env";
  if (access(path.c_str(), F_OK) != 0) return settings;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  if (!file) return unavailable(fmt::format("cannot read {} ({})", path, std::strerror(errno)));
  LORRY_ASSIGN(auto lines, parse_dotenv(text.str(), path));
  for (auto& line : lines) {
    settings.dotenv_names_.push_back(line.name);
    settings.dotenv_[line.name] = std::move(line);
  }
  return settings;
}

std::optional<Setting> Settings::get(const std::string& name) const {
  if (auto it = environment_.find(name); it != environment_.end() && !it->second.empty())
    return Setting{it->second, "the environment"};
  if (auto it = dotenv_.find(name); it != dotenv_.end() && !it->second.value.empty())
    return Setting{it->second.value, fmt::format(".env line {}", it->second.line)};
  return std::nullopt;
}

void Settings::export_dotenv() const {
  for (const auto& [name, line] : dotenv_) {
    const auto set = environment_.find(name);
    if (line.value.empty() || (set != environment_.end() && !set->second.empty())) continue;
    ::setenv(name.c_str(), line.value.c_str(), /*overwrite=*/1);
  }
}

}  // namespace lorry
