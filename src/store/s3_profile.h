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

/// The profile that AWS_PROFILE names, from AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE or
/// their usual places.
Profile read_profile();

}  // namespace lorry::store
