#include "store/s3_profile_keys.h"

#include <fmt/format.h>
#include <stdio.h>  // popen
#include <sys/wait.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json.h"
#include "base/sha1.h"
#include "net/http.h"
#include "store/s3_profile.h"
#include "store/s3_sts.h"

namespace lorry::store {
namespace {

using Found = Result<std::optional<Credentials>>;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string setting(const ProfileSettings& settings, const char* name) {
  const auto found = settings.find(name);
  return found == settings.end() ? std::string() : found->second;
}

std::string origin_of(const Profile& profile) {
  return fmt::format("profile {} of {}", profile.name, profile.files);
}

std::optional<Credentials> own_keys(const Profile& profile) {
  Credentials found;
  found.access_key = setting(profile.settings, "aws_access_key_id");
  found.secret_key = setting(profile.settings, "aws_secret_access_key");
  found.token = setting(profile.settings, "aws_session_token");
  found.origin = origin_of(profile);
  if (found.access_key.empty() || found.secret_key.empty()) return std::nullopt;
  return found;
}

// ---- single sign-on -----------------------------------------------------------------------------

/// What a profile says of single sign-on; `start_url` empty: nothing.
struct SignOn {
  std::string session, start_url, region, account, role;
};

SignOn sign_on_of(const Profile& profile) {
  SignOn found;
  found.session = setting(profile.settings, "sso_session");
  const ProfileSettings settings = found.session.empty()
                                       ? profile.settings
                                       : read_config_section("sso-session " + found.session);
  found.start_url = setting(settings, "sso_start_url");
  found.region = setting(settings, "sso_region");
  found.account = setting(profile.settings, "sso_account_id");
  found.role = setting(profile.settings, "sso_role_name");
  return found;
}

Error not_signed_on(const Profile& profile, const std::string& why) {
  return usage_error(fmt::format("profile {}: {}; run aws sso login --profile {}", profile.name,
                                 why, profile.name));
}

/// The token that `aws sso login` keeps for hours in a file named after session or URL.
Result<std::string> sign_on_token(const Profile& profile, const SignOn& sign_on) {
  Sha1 name;
  name.update(sign_on.session.empty() ? sign_on.start_url : sign_on.session);
  const std::string path = environment("HOME") + "/.aws/sso/cache/" + name.hex() + ".json";
  const auto text = read_token_file(path);
  if (!text.ok()) return not_signed_on(profile, "not signed on to " + sign_on.start_url);
  LORRY_ASSIGN(const Json kept, parse_json(*text, path));
  const auto member = [&](const char* key) {
    const Json value = kept.is_object() ? kept.value(key, Json()) : Json();
    return value.is_string() ? value.get<std::string>() : std::string();
  };
  const std::time_t expires = parse_utc(member("expiresAt"));
  if (expires != 0 && expires <= std::time(nullptr)) {
    return not_signed_on(profile, "the sign-on to " + sign_on.start_url + " has expired");
  }
  if (member("accessToken").empty()) return not_signed_on(profile, "no accessToken in " + path);
  return member("accessToken");
}

Result<Credentials> keys_of_sign_on(const Profile& profile, const SignOn& sign_on) {
  if (sign_on.region.empty() || sign_on.account.empty() || sign_on.role.empty()) {
    return usage_error(
        fmt::format("profile {}: single sign-on needs sso_region, sso_account_id and sso_role_name",
                    profile.name));
  }
  LORRY_ASSIGN(const std::string token, sign_on_token(profile, sign_on));
  std::string endpoint = environment("AWS_ENDPOINT_URL_SSO");
  if (endpoint.empty()) {
    endpoint = fmt::format("https://portal.sso.{}.amazonaws.com", sign_on.region);
  }
  net::Request request;
  request.url = fmt::format("{}/federation/credentials?role_name={}&account_id={}", endpoint,
                            net::url_encode(sign_on.role), net::url_encode(sign_on.account));
  request.what = "single sign-on of profile " + profile.name;
  request.headers = {{"x-amz-sso_bearer_token", token}};
  LORRY_ASSIGN(const auto response, net::Client::shared().send(std::move(request)));
  if (response.status == 401) return not_signed_on(profile, "the sign-on is no longer valid");
  const Json answer = Json::parse(response.body, nullptr, false);
  if (!response.ok()) {
    const Json said = answer.is_object() ? answer.value("message", Json()) : Json();
    return unavailable(fmt::format(
        "single sign-on of profile {}: role {} of account {}: {}", profile.name, sign_on.role,
        sign_on.account,
        said.is_string() ? said.get<std::string>() : fmt::format("HTTP {}", response.status)));
  }
  const Json keys = answer.is_object() ? answer.value("roleCredentials", Json()) : Json();
  const auto member = [&](const char* key) {
    const Json value = keys.is_object() ? keys.value(key, Json()) : Json();
    return value.is_string() ? value.get<std::string>() : std::string();
  };
  Credentials found;
  found.access_key = member("accessKeyId");
  found.secret_key = member("secretAccessKey");
  found.token = member("sessionToken");
  found.origin = "single sign-on of " + origin_of(profile);
  if (found.access_key.empty() || found.secret_key.empty()) {
    return unavailable(
        fmt::format("single sign-on of profile {}: no keys in the answer", profile.name));
  }
  if (const Json end = keys.value("expiration", Json()); end.is_number()) {
    found.expires = static_cast<std::time_t>(end.get<double>() / 1000);
  }
  return found;
}

// ---- a program that prints keys -----------------------------------------------------------------

Result<Credentials> keys_of_process(const Profile& profile, const std::string& command) {
  const std::string what = "credential_process of profile " + profile.name;
  FILE* const pipe = ::popen(command.c_str(), "re");
  if (pipe == nullptr) return unavailable(what + ": cannot be started");
  std::string text;
  char piece[4096];
  for (size_t n; (n = ::fread(piece, 1, sizeof(piece), pipe)) > 0;) text.append(piece, n);
  const int status = ::pclose(pipe);
  if (status != 0) {
    return unavailable(fmt::format("{}: it ended with {} {}", what,
                                   WIFEXITED(status) ? "status" : "signal",
                                   WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status)));
  }
  // What it printed may hold keys: it is not for messages.
  const Json document = Json::parse(text, nullptr, false);
  if (!document.is_object() || document.value("Version", Json()) != 1) {
    return unavailable(what + ": it printed no JSON object of \"Version\": 1");
  }
  return keys_from_document(text, what);
}

// ---- a profile ----------------------------------------------------------------------------------

class ProfileKeys {
 public:
  explicit ProfileKeys(const MachineKeys& machine) : machine_(machine) {}

  Found of(const Profile& profile) {
    if (!setting(profile.settings, "role_arn").empty()) {
      LORRY_ASSIGN(auto keys, of_role(profile));
      return std::optional(std::move(keys));
    }
    if (const SignOn sign_on = sign_on_of(profile); !sign_on.start_url.empty()) {
      LORRY_ASSIGN(auto keys, keys_of_sign_on(profile, sign_on));
      return std::optional(std::move(keys));
    }
    if (auto keys = own_keys(profile)) return keys;
    const std::string command = setting(profile.settings, "credential_process");
    if (command.empty()) return std::optional<Credentials>();
    LORRY_ASSIGN(auto keys, keys_of_process(profile, command));
    return std::optional(std::move(keys));
  }

 private:
  Result<Credentials> of_role(const Profile& profile) {
    Role role;
    role.arn = setting(profile.settings, "role_arn");
    role.session_name = setting(profile.settings, "role_session_name");
    role.external_id = setting(profile.settings, "external_id");
    role.duration_seconds = setting(profile.settings, "duration_seconds");
    role.region = setting(profile.settings, "region");
    const std::string token_file = setting(profile.settings, "web_identity_token_file");
    if (!token_file.empty()) return assume_role_with_web_identity(role, token_file);
    if (!setting(profile.settings, "mfa_serial").empty()) {
      return usage_error(
          fmt::format("profile {}: its role asks for a code (mfa_serial), which lorry cannot ask "
                      "for; give temporary keys (aws configure export-credentials --profile {})",
                      profile.name, profile.name));
    }
    LORRY_ASSIGN(const Credentials by, keys_before(profile));
    return assume_role(role, by);
  }

  /// Whose keys ask for the role of a profile.
  Result<Credentials> keys_before(const Profile& profile) {
    const std::string source = setting(profile.settings, "source_profile");
    const std::string machine = setting(profile.settings, "credential_source");
    const auto or_none = [&](Found found, const std::string& where) -> Result<Credentials> {
      if (!found.ok()) return std::move(found).error();
      if (*found) return **std::move(found);
      return usage_error(
          fmt::format("profile {}: {} has no keys to take its role on with", profile.name, where));
    };
    if (source.empty() && machine.empty()) {
      return usage_error(
          fmt::format("profile {} has a role_arn, but neither source_profile nor credential_source "
                      "nor web_identity_token_file",
                      profile.name));
    }
    if (source.empty()) return or_none(machine_(machine), "credential_source " + machine);
    if (source == profile.name) return or_none(own_keys(profile), "it");
    if (!seen_.insert(source).second) {
      return usage_error(
          fmt::format("profile {}: source_profile {} leads back to itself", profile.name, source));
    }
    const Profile before = read_profile(source);
    if (!before.found) {
      return usage_error(fmt::format("profile {}: there is no source_profile {} in {}",
                                     profile.name, source, before.files));
    }
    return or_none(of(before), "source_profile " + source);
  }

  const MachineKeys& machine_;
  std::set<std::string> seen_;
};

}  // namespace

Found profile_keys(const MachineKeys& machine) {
  const Profile profile = read_profile();
  if (!profile.found && !environment("AWS_PROFILE").empty()) {
    return usage_error(
        fmt::format("AWS_PROFILE={}: there is no such profile in {}", profile.name, profile.files));
  }
  return ProfileKeys(machine).of(profile);
}

}  // namespace lorry::store
