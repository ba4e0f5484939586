#include "store/s3_credentials.h"

#include <fmt/format.h>

#include <cstdlib>
#include <mutex>
#include <optional>

#include "net/http.h"
#include "store/s3_profile.h"
#include "store/s3_profile_keys.h"
#include "store/s3_sts.h"

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

/// What a cluster gives its pods: a token in a file, and the role that it is good for.
Found from_web_identity() {
  const std::string file = environment("AWS_WEB_IDENTITY_TOKEN_FILE");
  Role role;
  role.arn = environment("AWS_ROLE_ARN");
  if (file.empty() || role.arn.empty()) return std::optional<Credentials>();
  role.session_name = environment("AWS_ROLE_SESSION_NAME");
  role.region = environment("AWS_REGION");
  if (role.region.empty()) role.region = environment("AWS_DEFAULT_REGION");
  LORRY_ASSIGN(auto found, assume_role_with_web_identity(role, file));
  return std::optional(std::move(found));
}

/// The JSON document in which containers and instances get theirs.
Found from_document(const std::string& text, const std::string& origin) {
  LORRY_ASSIGN(auto found, keys_from_document(text, origin));
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

Found from_profile() {
  return profile_keys([](const std::string& source) -> Found {
    if (source == "Environment") return from_environment();
    if (source == "EcsContainer") return from_container();
    if (source == "Ec2InstanceMetadata") return from_instance();
    return usage_error(
        fmt::format("credential_source {}: there are Environment, EcsContainer and "
                    "Ec2InstanceMetadata",
                    source));
  });
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
