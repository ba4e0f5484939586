#include "store/s3_profile.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace lorry::store {
namespace {

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string file_named_by(const char* variable, const char* usual) {
  const std::string named = environment(variable);
  return named.empty() ? environment("HOME") + usual : named;
}

std::string config_file() { return file_named_by("AWS_CONFIG_FILE", "/.aws/config"); }

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

std::map<std::string, ProfileSettings> parse_profiles(std::string_view text) {
  std::map<std::string, ProfileSettings> sections;
  ProfileSettings* section = nullptr;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view raw = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::string_view line = trimmed(raw);
    if (line.empty() || line[0] == '#' || line[0] == ';') continue;
    if (line.front() == '[' && line.back() == ']') {
      std::string_view name = trimmed(line.substr(1, line.size() - 2));
      if (name.starts_with("profile ")) name = trimmed(name.substr(8));
      section = &sections[std::string(name)];
      continue;
    }
    const size_t equals = line.find('=');
    const bool nested = raw[0] == ' ' || raw[0] == '\t';
    if (!section || nested || equals == std::string_view::npos) continue;
    section->emplace(trimmed(line.substr(0, equals)), trimmed(line.substr(equals + 1)));
  }
  return sections;
}

Profile read_profile(std::string name) {
  Profile profile;
  profile.name = std::move(name);
  if (profile.name.empty()) profile.name = environment("AWS_PROFILE");
  if (profile.name.empty()) profile.name = "default";
  const std::string credentials = file_named_by("AWS_SHARED_CREDENTIALS_FILE", "/.aws/credentials");
  const std::string config = config_file();
  profile.files = credentials + " and " + config;
  for (const std::string& path : {credentials, config}) {
    auto sections = parse_profiles(contents(path));
    const auto found = sections.find(profile.name);
    if (found == sections.end()) continue;
    profile.found = true;
    profile.settings.merge(found->second);
  }
  return profile;
}

ProfileSettings read_config_section(const std::string& name) {
  auto sections = parse_profiles(contents(config_file()));
  const auto found = sections.find(name);
  return found == sections.end() ? ProfileSettings() : std::move(found->second);
}

}  // namespace lorry::store
