#include "store/s3_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>

#include "base/digest.h"
#include "base/log.h"
#include "store/s3_xml.h"

namespace lorry::store {
namespace {

/// Rounds of putting something right: region, then clock or credentials, and once more.
constexpr int kMostRounds = 4;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string environment(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (std::string value = environment(name); !value.empty()) return value;
  }
  return {};
}

/// Services whose S3 endpoint answers by virtual host only, or better so.
bool wants_virtual_hosts(std::string_view host) {
  for (const std::string_view suffix :
       {".amazonaws.com", ".amazonaws.com.cn", ".aliyuncs.com", ".myqcloud.com", ".volces.com",
        ".myhuaweicloud.com", "t3.storage.dev"}) {
    if (host.ends_with(suffix)) return true;
  }
  return false;
}

std::string host_of(const std::string& endpoint) {
  const std::string origin = net::url_origin(endpoint);
  const std::string host = origin.substr(origin.find("://") + 3);
  return host.substr(0, host.rfind(':'));
}

bool is_checksum_header(const std::string& name) {
  return name.starts_with("x-amz-checksum-") || name == "x-amz-sdk-checksum-algorithm";
}

/// Seconds since 1970 of an HTTP date; 0 for anything else.
std::time_t parse_http_date(std::string_view text) {
  std::tm utc{};
  const char* end = ::strptime(std::string(text).c_str(), "%a, %d %b %Y %H:%M:%S", &utc);
  return end ? ::timegm(&utc) : 0;
}

std::string utc_text(std::time_t time) {
  std::tm utc{};
  ::gmtime_r(&time, &utc);
  char text[40];
  return std::string(text, std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &utc));
}

/// Codes for a passing trouble that come with a status which looks final.
std::optional<std::string> passing_code(const net::Response& response) {
  if (response.ok()) return std::nullopt;
  const S3Failure failure = failure_of(response);
  for (const char* code :
       {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling",
        "RequestLimitExceeded", "OperationAborted", "BadDigest", "IncompleteBody"}) {
    if (failure.code == code) return fmt::format("{}: {}", failure.code, failure.message);
  }
  return std::nullopt;
}

}  // namespace

Result<S3Place> find_s3_place(const std::string& bucket) {
  S3Place place;
  place.bucket = bucket;
  place.endpoint = environment({"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"});
  while (place.endpoint.ends_with('/')) place.endpoint.pop_back();
  if (!place.endpoint.empty() && !place.endpoint.starts_with("http://") &&
      !place.endpoint.starts_with("https://")) {
    return usage_error(
        fmt::format("the S3 endpoint \"{}\" is no URL; write AWS_ENDPOINT_URL_S3=https://host",
                    place.endpoint));
  }
  place.region = environment({"AWS_REGION", "AWS_DEFAULT_REGION"});
  if (place.region.empty()) place.region = profile_region();
  if (place.region.empty() || (place.region == "auto" && place.endpoint.empty())) {
    place.region = "us-east-1";  // a bucket elsewhere says where it is
  }
  const std::string style = environment("LORRY_S3_ADDRESSING");
  if (style == "path" || style == "virtual") {
    place.path_style = style == "path";
  } else if (!style.empty()) {
    return usage_error(fmt::format("LORRY_S3_ADDRESSING={}: say path or virtual", style));
  } else if (bucket.find('.') != std::string::npos) {
    place.path_style = true;  // no certificate covers a.b.host
  } else {
    place.path_style = !place.endpoint.empty() && !wants_virtual_hosts(host_of(place.endpoint));
  }
  return place;
}

S3Failure failure_of(const net::Response& response) {
  S3Failure failure;
  failure.status = response.status;
  failure.code = xml_text(response.body, "Code").value_or("");
  failure.message = xml_text(response.body, "Message").value_or("");
  return failure;
}

S3Client::S3Client(S3Place place, std::shared_ptr<CredentialSource> credentials,
                   const net::Client& http)
    : place_(std::move(place)),
      credentials_(std::move(credentials)),
      http_(http),
      region_(place_.region) {}

std::string S3Client::region() const {
  std::lock_guard lock(mutex_);
  return region_;
}

std::string S3Client::name_of(const std::string& key) const {
  return key.empty() ? "s3://" + place_.bucket : fmt::format("s3://{}/{}", place_.bucket, key);
}

S3Client::Address S3Client::address(const std::string& key) const {
  const std::string endpoint = place_.endpoint.empty()
                                   ? fmt::format("https://s3.{}.amazonaws.com", region())
                                   : place_.endpoint;
  const size_t colon = endpoint.find("://");
  const size_t slash = std::min(endpoint.find('/', colon + 3), endpoint.size());
  Address address;
  address.scheme = endpoint.substr(0, colon);
  address.host = endpoint.substr(colon + 3, slash - colon - 3);
  address.path = endpoint.substr(slash);
  if (place_.path_style) {
    address.path += '/';
    address.path += net::url_encode(place_.bucket);
  } else {
    address.host = fmt::format("{}.{}", place_.bucket, address.host);
  }
  if (!key.empty() || !place_.path_style) {
    address.path += '/';
    address.path += net::url_encode(key, "/");
  }
  return address;
}

net::Request S3Client::prepare(const S3Request& request) const {
  net::Request http;
  http.method = request.method;
  http.what = name_of(request.key);
  http.body = request.body;
  http.into = request.into;
  http.exact = request.exact;
  http.on_data = request.on_data;
  http.on_head = request.on_head;
  http.stop = request.stop;
  http.stall_seconds = request.stall_seconds;
  http.follow_redirects = false;  // the signature is for one host; put_right knows better
  http.retry_because = [&request](const net::Response& response) -> std::optional<std::string> {
    if (auto reason = passing_code(response)) return reason;
    if (request.retry_because) return request.retry_because(response);
    return std::nullopt;
  };
  // Each try carries the time it was made at, and keys that are valid then.
  http.before_try = [this, &request](net::Request& http, int) -> Result<> {
    if (request.guard) LORRY_TRY(request.guard());
    return sign(request, http);
  };
  return http;
}

Result<> S3Client::sign(const S3Request& request, net::Request& http) const {
  const Address at = address(request.key);
  ToSign to_sign;
  to_sign.method = request.method;
  to_sign.host = at.host;
  to_sign.path = at.path;
  to_sign.query = canonical_query(request.query);
  http.url = at.scheme + "://" + at.host + at.path;
  if (!to_sign.query.empty()) http.url += "?" + to_sign.query;
  http.headers.clear();
  for (const auto& header : request.headers) {
    if (checksums_ || !is_checksum_header(header.first)) http.headers.push_back(header);
  }
  LORRY_ASSIGN(const Credentials credentials, credentials_->get());
  if (credentials.anonymous()) return {};
  to_sign.payload_hash = kEmptyPayload;
  if (!request.body.empty()) {
    to_sign.payload_hash = kUnsignedPayload;
    if (sign_payload_) {
      Sha256 hash;
      for (const auto span : request.body) hash.update(span);
      to_sign.payload_hash = hash.hex();
    }
  }
  signer_.sign(to_sign, credentials, region(), std::time(nullptr) + clock_offset_, http.headers);
  return {};
}

Result<net::Response> S3Client::send(const S3Request& request) const {
  for (int round = 1;; ++round) {
    auto response = http_.send(prepare(request));
    if (!response.ok()) {
      const bool unreachable = response.error().message.find("cannot reach") != std::string::npos;
      if (unreachable && place_.endpoint.empty()) return std::move(response).error();
      if (unreachable) {
        return Error{response.error().kind,
                     response.error().message + "; is AWS_ENDPOINT_URL_S3 right?"};
      }
      return std::move(response).error();
    }
    if (response->ok() || round == kMostRounds) return response;
    if (!put_right(*response, request, round)) return response;
  }
}

/// Whether what was wrong may be gone when the request is sent again.
bool S3Client::put_right(const net::Response& response, const S3Request& request, int round) const {
  S3Failure failure = failure_of(response);
  if (adopt_region(response, failure)) return true;
  if (failure.code == "RequestTimeTooSkewed") return adopt_clock(response);
  if (failure.code == "ExpiredToken" || failure.code == "TokenRefreshRequired" ||
      failure.code == "InvalidToken") {
    return round == 1 && credentials_->renew();
  }
  if (failure.code == "XAmzContentSHA256Mismatch" ||
      (failure.status == 400 && failure.message.find(kUnsignedPayload) != std::string::npos)) {
    return !request.body.empty() && !sign_payload_.exchange(true);
  }
  const bool about_checksums = failure.message.find("hecksum") != std::string::npos ||
                               failure.message.find("not implemented") != std::string::npos;
  const bool sent_checksums =
      std::any_of(request.headers.begin(), request.headers.end(),
                  [](const auto& header) { return is_checksum_header(header.first); });
  if (sent_checksums && about_checksums &&
      (failure.code == "NotImplemented" || failure.code == "InvalidRequest" ||
       failure.code == "InvalidArgument")) {
    return checksums_.exchange(false);
  }
  return false;
}

bool S3Client::adopt_region(const net::Response& response, const S3Failure& failure) const {
  const bool elsewhere = response.status == 301 || response.status == 307 ||
                         failure.code == "AuthorizationHeaderMalformed" ||
                         failure.code == "PermanentRedirect" ||
                         (response.status == 400 && response.header("x-amz-bucket-region"));
  if (!elsewhere) return false;
  std::string right(response.header("x-amz-bucket-region").value_or(""));
  if (right.empty()) right = xml_text(response.body, "Region").value_or("");
  std::lock_guard lock(mutex_);
  if (right.empty() && region_ == "auto") right = "us-east-1";
  if (right.empty() || right == region_) return false;
  log::debug("{}: is in region {}, not {}", name_of(""), right, region_);
  region_ = right;
  return true;
}

bool S3Client::adopt_clock(const net::Response& response) const {
  const auto date = response.header("date");
  const std::time_t theirs = date ? parse_http_date(*date) : 0;
  if (theirs == 0) return false;
  const int64_t offset = int64_t(theirs) - int64_t(std::time(nullptr));
  if (std::abs(offset - clock_offset_.exchange(offset)) < 60) return false;
  log::warn("this machine's clock says {}, the S3 server's {}; signing with the server's time",
            utc_text(std::time(nullptr)), utc_text(theirs));
  return true;
}

Result<net::Response> S3Client::expect(const S3Request& request) const {
  LORRY_ASSIGN(auto response, send(request));
  if (!response.ok()) return error_of(response, request.method, request.key);
  return response;
}

Error S3Client::error_of(const net::Response& response, std::string_view method,
                         const std::string& key) const {
  const S3Failure failure = failure_of(response);
  const std::string name = name_of(key);
  const std::string at = place_.endpoint.empty() ? "AWS" : net::url_origin(place_.endpoint);
  auto known = credentials_->get();
  const std::string origin = known.ok() ? known->origin : "nowhere";
  const std::string& code = failure.code;
  // The third is versitygw's, with status 404.
  if (code == "InvalidAccessKeyId" || code == "InvalidClientTokenId" ||
      code == "XAdminUserNotFound") {
    return invalid_input(
        fmt::format("{}: {} does not know the access key (from {}); check AWS_ACCESS_KEY_ID", name,
                    at, origin));
  }
  if (code == "SignatureDoesNotMatch") {
    return invalid_input(
        fmt::format("{}: the secret key (from {}) does not belong to the access key; check "
                    "AWS_SECRET_ACCESS_KEY",
                    name, origin));
  }
  if (code == "ExpiredToken" || code == "TokenRefreshRequired" || code == "InvalidToken") {
    return invalid_input(fmt::format(
        "{}: the session token (from {}) has expired or is not valid; log in again", name, origin));
  }
  if (code == "RequestTimeTooSkewed") {
    return unavailable(fmt::format(
        "{}: this machine's clock says {}, too far from the server's ({}); set the clock", name,
        utc_text(std::time(nullptr)), response.header("date").value_or("not told")));
  }
  if (code == "NoSuchBucket") {
    return not_found(
        fmt::format("there is no bucket {} at {}; create it first", place_.bucket, at));
  }
  if (code == "AuthorizationHeaderMalformed" || code == "PermanentRedirect" ||
      response.status == 301) {
    return usage_error(fmt::format("{}: the bucket is not in region {}{}; set AWS_REGION", name,
                                   region(),
                                   failure.message.empty() ? "" : " (" + failure.message + ")"));
  }
  if (response.status == 404) return not_found(name + " is not there");
  if (response.status == 401 || response.status == 403) {
    const char* may = method == "GET" || method == "HEAD" ? "read"
                      : method == "DELETE"                ? "delete"
                                                          : "write";
    return invalid_input(fmt::format(
        "{}: access denied{}; these credentials (from {}) may not {} it", name,
        failure.message.empty() || code == "AccessDenied" ? "" : " (" + failure.message + ")",
        origin, key.empty() ? "list" : may));
  }
  const std::string said =
      failure.message.empty() ? failure.code : fmt::format("{}: {}", failure.code, failure.message);
  return unavailable(fmt::format("{}: {} answered HTTP {}{}", name, at, response.status,
                                 said.empty() ? "" : " (" + said + ")"));
}

}  // namespace lorry::store
