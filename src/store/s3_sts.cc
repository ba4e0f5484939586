#include "store/s3_sts.h"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/digest.h"
#include "base/json.h"
#include "net/http.h"
#include "store/s3_signer.h"
#include "store/s3_xml.h"

namespace lorry::store {
namespace {

std::string endpoint_of(const Role& role) {
  const char* named = std::getenv("AWS_ENDPOINT_URL_STS");
  if (named && *named) return named;
  if (role.region.empty() || role.region == "auto") return "https://sts.amazonaws.com";
  return fmt::format("https://sts.{}.amazonaws.com", role.region);
}

/// The parameters that both ways of asking share.
std::string form_of(const char* action, const Role& role) {
  std::string form =
      fmt::format("Action={}&Version=2011-06-15&RoleArn={}&RoleSessionName={}", action,
                  net::url_encode(role.arn),
                  net::url_encode(role.session_name.empty() ? "lorry" : role.session_name));
  if (!role.external_id.empty()) form += "&ExternalId=" + net::url_encode(role.external_id);
  if (!role.duration_seconds.empty()) {
    form += "&DurationSeconds=" + net::url_encode(role.duration_seconds);
  }
  return form;
}

/// Sends the form, signed where there is somebody to sign it.
Result<Credentials> ask(const Role& role, const std::string& form, const Credentials* by,
                        const std::string& origin) {
  const std::string endpoint = endpoint_of(role);
  net::Request request;
  request.method = "POST";
  request.url = endpoint + "/";
  request.what = "credentials of role " + role.arn;
  request.headers = {{"Content-Type", "application/x-www-form-urlencoded"}};
  request.body = {form};
  if (by) {
    const std::string host = net::url_origin(request.url).substr(endpoint.find("://") + 3);
    const std::string region =
        role.region.empty() || role.region == "auto" ? "us-east-1" : role.region;
    ToSign to_sign{"POST", host, "/", "", sha256_hex(form)};
    to_sign.service = "sts";
    S3Signer().sign(to_sign, *by, region, std::time(nullptr), request.headers);
  }
  LORRY_ASSIGN(const auto response, net::Client::shared().send(std::move(request)));
  if (!response.ok()) {
    return unavailable(fmt::format(
        "credentials of role {}: {}", role.arn,
        xml_text(response.body, "Message").value_or(fmt::format("HTTP {}", response.status))));
  }
  Credentials found;
  found.access_key = xml_text(response.body, "AccessKeyId").value_or("");
  found.secret_key = xml_text(response.body, "SecretAccessKey").value_or("");
  found.token = xml_text(response.body, "SessionToken").value_or("");
  found.expires = parse_utc(xml_text(response.body, "Expiration").value_or(""));
  found.origin = origin;
  if (found.access_key.empty() || found.secret_key.empty()) {
    return unavailable(fmt::format("credentials of role {}: no keys in the answer", role.arn));
  }
  return found;
}

}  // namespace

Result<Credentials> assume_role(const Role& role, const Credentials& by) {
  return ask(role, form_of("AssumeRole", role), &by,
             fmt::format("role {}, taken on with {}", role.arn, by.origin));
}

Result<Credentials> assume_role_with_web_identity(const Role& role, const std::string& token_file) {
  LORRY_ASSIGN(const std::string token, read_token_file(token_file));
  const std::string form =
      form_of("AssumeRoleWithWebIdentity", role) + "&WebIdentityToken=" + net::url_encode(token);
  return ask(role, form, nullptr, "web identity " + token_file);
}

Result<Credentials> keys_from_document(const std::string& text, const std::string& origin) {
  LORRY_ASSIGN(const Json document, parse_json(text, origin));
  const auto member = [&](const char* name) {
    const auto at = document.find(name);
    return at != document.end() && at->is_string() ? at->get<std::string>() : std::string();
  };
  Credentials found;
  found.access_key = member("AccessKeyId");
  found.secret_key = member("SecretAccessKey");
  found.token = member("Token");
  if (found.token.empty()) found.token = member("SessionToken");
  found.expires = parse_utc(member("Expiration"));
  found.origin = origin;
  if (found.access_key.empty() || found.secret_key.empty()) {
    return unavailable(fmt::format("{}: no keys in its answer", origin));
  }
  return found;
}

std::time_t parse_utc(const std::string& text) {
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

}  // namespace lorry::store
