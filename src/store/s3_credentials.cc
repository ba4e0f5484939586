#include "store/s3_credentials.h"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "base/json.h"
#include "net/http.h"
#include "store/s3_profile.h"
#include "store/s3_xml.h"

namespace lorry::store {
namespace {

constexpr std::time_t kRenewBefore = 300;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

/// Services of this machine answer at once or not at all.
const net::Client& nearby_client() {
  static const auto* const client = [] {
    net::RetryPolicy policy;
    policy.attempts = 3;
    policy.connect_seconds = 1;
    policy.stall_seconds = 5;
    policy.max_delay = 1;
    return new net::Client(policy);
  }();
  return *client;
}

/// "2026-11-22T20:30:00Z" as UTC seconds; 0 for anything else.
std::time_t parse_time(const std::string& text) {
  std::tm utc{};
  const char* end = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &utc);
  return end ? ::timegm(&utc) : 0;
}

Result<std::string> read_token_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  std::string token = text.str();
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r')) token.pop_back();
  if (token.empty()) return unavailable(fmt::format("no token in {}", path));
  return token;
}

// ---- where credentials come from; nullopt: not configured here ---------------------------------

using Found = Result<std::optional<Credentials>>;

Found from_environment() {
  Credentials found;
  found.access_key = environment("AWS_ACCESS_KEY_ID");
  found.secret_key = environment("AWS_SECRET_ACCESS_KEY");
  found.token = environment("AWS_SESSION_TOKEN");
  found.origin = "the environment";
  if (found.access_key.empty() && found.secret_key.empty()) return std::optional<Credentials>();
  if (found.secret_key.empty()) {
    return usage_error("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not");
  }
  if (found.access_key.empty()) {
    return usage_error("AWS_SECRET_ACCESS_KEY is set, but AWS_ACCESS_KEY_ID is not");
  }
  return std::optional(std::move(found));
}

Found from_profile() {
  const Profile profile = read_profile();
  const auto setting = [&](const char* name) {
    const auto found = profile.settings.find(name);
    return found == profile.settings.end() ? std::string() : found->second;
  };
  if (!profile.found && !environment("AWS_PROFILE").empty()) {
    return usage_error(
        fmt::format("AWS_PROFILE={}: there is no such profile in {}", profile.name, profile.files));
  }
  Credentials found;
  found.access_key = setting("aws_access_key_id");
  found.secret_key = setting("aws_secret_access_key");
  found.token = setting("aws_session_token");
  found.origin = fmt::format("profile {} of {}", profile.name, profile.files);
  if (found.access_key.empty() || found.secret_key.empty()) return std::optional<Credentials>();
  return std::optional(std::move(found));
}

/// AssumeRoleWithWebIdentity of the security token service, which wants no signature.
Found from_web_identity() {
  const std::string file = environment("AWS_WEB_IDENTITY_TOKEN_FILE");
  const std::string role = environment("AWS_ROLE_ARN");
  if (file.empty() || role.empty()) return std::optional<Credentials>();
  LORRY_ASSIGN(const std::string token, read_token_file(file));
  std::string region = environment("AWS_REGION");
  if (region.empty()) region = environment("AWS_DEFAULT_REGION");
  std::string endpoint = environment("AWS_ENDPOINT_URL_STS");
  if (endpoint.empty()) {
    endpoint = region.empty() || region == "auto"
                   ? "https://sts.amazonaws.com"
                   : fmt::format("https://sts.{}.amazonaws.com", region);
  }
  std::string session = environment("AWS_ROLE_SESSION_NAME");
  if (session.empty()) session = "lorry";
  const std::string body = fmt::format(
      "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={}&RoleSessionName={}"
      "&WebIdentityToken={}",
      net::url_encode(role), net::url_encode(session), net::url_encode(token));
  net::Request request;
  request.method = "POST";
  request.url = endpoint + "/";
  request.what = "credentials of role " + role;
  request.headers = {{"Content-Type", "application/x-www-form-urlencoded"}};
  request.body = {body};
  LORRY_ASSIGN(const auto response, net::Client::shared().send(std::move(request)));
  if (!response.ok()) {
    return unavailable(fmt::format(
        "credentials of role {}: {}", role,
        xml_text(response.body, "Message").value_or(fmt::format("HTTP {}", response.status))));
  }
  Credentials found;
  found.access_key = xml_text(response.body, "AccessKeyId").value_or("");
  found.secret_key = xml_text(response.body, "SecretAccessKey").value_or("");
  found.token = xml_text(response.body, "SessionToken").value_or("");
  found.expires = parse_time(xml_text(response.body, "Expiration").value_or(""));
  found.origin = "web identity " + file;
  return std::optional(std::move(found));
}

/// The JSON document in which containers and instances get theirs.
Found from_document(const std::string& text, const std::string& origin) {
  LORRY_ASSIGN(const Json document, parse_json(text, origin));
  const auto member = [&](const char* name) {
    const auto at = document.find(name);
    return at != document.end() && at->is_string() ? at->get<std::string>() : std::string();
  };
  Credentials found;
  found.access_key = member("AccessKeyId");
  found.secret_key = member("SecretAccessKey");
  found.token = member("Token");
  found.expires = parse_time(member("Expiration"));
  found.origin = origin;
  if (found.access_key.empty() || found.secret_key.empty()) {
    return unavailable(fmt::format("{}: no keys in its answer", origin));
  }
  return std::optional(std::move(found));
}

Found from_container() {
  std::string url = environment("AWS_CONTAINER_CREDENTIALS_FULL_URI");
  const std::string relative = environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
  if (!relative.empty()) url = "http://169.254.170.2" + relative;
  if (url.empty()) return std::optional<Credentials>();
  std::string token = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN");
  if (const std::string file = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
      !file.empty()) {
    LORRY_ASSIGN(token, read_token_file(file));
  }
  net::Request request;
  request.url = url;
  request.what = "the container's credentials";
  if (!token.empty()) request.headers.emplace_back("Authorization", token);
  LORRY_ASSIGN(const auto response, nearby_client().send(std::move(request)));
  if (!response.ok()) {
    return unavailable(fmt::format("the container's credentials: HTTP {}", response.status));
  }
  return from_document(response.body, "the container's credentials");
}

/// Instance metadata, version 2: a session token first, then the role, then its keys.
Found from_instance() {
  if (environment("AWS_EC2_METADATA_DISABLED") == "true") return std::optional<Credentials>();
  std::string endpoint = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
  if (endpoint.empty()) endpoint = "http://169.254.169.254";
  while (endpoint.ends_with('/')) endpoint.pop_back();
  const std::string roles = endpoint + "/latest/meta-data/iam/security-credentials/";
  const std::string what = "the instance's role";

  static const auto* const impatient = [] {
    net::RetryPolicy policy;
    policy.attempts = 1;
    policy.connect_seconds = 1;
    policy.stall_seconds = 2;
    return new net::Client(policy);
  }();
  net::Request ask;
  ask.method = "PUT";
  ask.url = endpoint + "/latest/api/token";
  ask.what = what;
  ask.headers = {{"X-aws-ec2-metadata-token-ttl-seconds", "300"}};
  auto token = impatient->send(std::move(ask));
  if (!token.ok() || !token->ok()) return std::optional<Credentials>();  // no such machine

  const auto get = [&](const std::string& url) {
    net::Request request;
    request.url = url;
    request.what = what;
    request.headers = {{"X-aws-ec2-metadata-token", token->body}};
    return nearby_client().send(std::move(request));
  };
  LORRY_ASSIGN(const auto role, get(roles));
  if (!role.ok()) return std::optional<Credentials>();  // an instance without a role
  LORRY_ASSIGN(const auto keys, get(roles + role.body.substr(0, role.body.find('\n'))));
  if (!keys.ok()) return unavailable(fmt::format("{}: HTTP {}", what, keys.status));
  return from_document(keys.body, what);
}

// ------------------------------------------------------------------------------------------------

Error nothing_found() {
  const Profile profile = read_profile();
  return usage_error(fmt::format(
      "no credentials for S3: looked at AWS_ACCESS_KEY_ID, at profile {} in {}, and for a role of "
      "this machine; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
      profile.name, profile.files));
}

class StandardCredentials final : public CredentialSource {
 public:
  Result<Credentials> get() override {
    std::lock_guard lock(mutex_);
    const std::time_t now = std::time(nullptr);
    if (kept_ && (kept_->expires == 0 || now < kept_->expires - kRenewBefore)) return *kept_;
    auto found = find();
    if (found.ok()) {
      kept_ = *found;
      return found;
    }
    if (kept_ && now < kept_->expires) return *kept_;  // still good; ask again next time
    return found;
  }

  bool renew() override {
    std::lock_guard lock(mutex_);
    // Keys of the environment stay what they are; a file may have been written anew.
    const bool may_change = !kept_ || kept_->origin != "the environment";
    kept_.reset();
    return may_change;
  }

 private:
  static Result<Credentials> find() {
    if (environment("LORRY_S3_ANONYMOUS") == "1") return Credentials();
    for (const auto source :
         {from_environment, from_web_identity, from_profile, from_container, from_instance}) {
      LORRY_ASSIGN(auto found, source());
      if (found) return std::move(*found);
    }
    return nothing_found();
  }

  std::mutex mutex_;
  std::optional<Credentials> kept_;  ///< guarded by mutex_
};

}  // namespace

std::shared_ptr<CredentialSource> standard_credentials() {
  return std::make_shared<StandardCredentials>();
}

std::string profile_region() {
  const Profile profile = read_profile();
  const auto found = profile.settings.find("region");
  return found == profile.settings.end() ? std::string() : found->second;
}

}  // namespace lorry::store
