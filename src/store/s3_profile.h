// ~/.aws/credentials and ~/.aws/config.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace lorry::store {

using ProfileSettings = std::map<std::string, std::string>;

/// Settings by section of an INI file as AWS writes it ("[profile x]" is "x"; indented lines belong
/// to the setting above and are passed over).
std::map<std::string, ProfileSettings> parse_profiles(std::string_view text);

struct Profile {
  std::string name;          ///< AWS_PROFILE, or "default"
  std::string files;         ///< where was looked, for messages
  ProfileSettings settings;  ///< of both files, credentials first
  bool found = false;
};

/// A profile from AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE or their usual places; without a
/// name the one that AWS_PROFILE names, or "default".
Profile read_profile(std::string name = {});

/// Another section of the config file, by its whole name ("sso-session x"); empty if there is none.
ProfileSettings read_config_section(const std::string& name);

}  // namespace lorry::store
