#include "net/transfer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "base/version.h"

namespace lorry::net {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMostErrorBody = 1 << 20;
constexpr int kMostRedirects = 10;
/// Large enough that a system call costs little beside what it carries, small enough for the cache.
constexpr long kReceiveBuffer = 256 << 10;
constexpr long kSendBuffer = 512 << 10;

std::atomic<bool> g_stop_all{false};

double seconds_since(Clock::time_point then) {
  return std::chrono::duration<double>(Clock::now() - then).count();
}

/// Where certificates lie: what the user says, then where distributions keep them. nullptr leaves
/// it to libcurl.
const char* certificate_file() {
  static const char* const found = [] {
    for (const char* name :
         {"AWS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"}) {
      const char* path = std::getenv(name);
      if (path && *path) return path;
    }
    for (const char* path :
         {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
          "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
          "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"}) {
      if (::access(path, R_OK) == 0) return path;
    }
    return static_cast<const char*>(nullptr);
  }();
  return found;
}

/// A folder of certificates, named by their hashes: as for certificate_file().
const char* certificate_folder() {
  static const char* const found = [] {
    const char* named = std::getenv("SSL_CERT_DIR");
    if (named && *named) return named;
    for (const char* path : {"/etc/ssl/certs", "/etc/pki/tls/certs"}) {
      if (::access(path, R_OK | X_OK) == 0) return path;
    }
    return static_cast<const char*>(nullptr);
  }();
  return found;
}

/// What a user can do about a certificate that is not trusted.
const char* certificate_hint() {
  return certificate_file() ? "SSL_CERT_FILE names another bundle"
                            : "this machine has no bundle of certificates: install the package "
                              "ca-certificates, or name one in SSL_CERT_FILE";
}

/// The state of one try, which libcurl's callbacks get.
class Try {
 public:
  Try(const CurlLibrary& curl, CURL* handle, Request& request, const RetryPolicy& policy)
      : curl_(curl), handle_(handle), request_(request), policy_(policy) {}
  ~Try() {
    if (header_list_) curl_.slist_free_all(header_list_);
  }

  TryOutcome run() {
    set_options();
    start_ = last_activity_ = Clock::now();
    const CURLcode code = curl_.easy_perform(handle_);
    if (error_) return final_error(std::move(*error_));
    if (code == CURLE_OK) return finished();
    return failed(code);
  }

 private:
  template <typename Value>
  void set(CURLoption option, Value value) {
    (void)curl_.easy_setopt(handle_, option, value);
  }

  void set_options() {
    curl_.easy_reset(handle_);
    set(CURLOPT_URL, request_.url.c_str());
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_ERRORBUFFER, message_);
    set(CURLOPT_USERAGENT, user_agent());
    set(CURLOPT_HTTP_VERSION, long(CURL_HTTP_VERSION_1_1));
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    set(CURLOPT_TCP_KEEPALIVE, 1L);
    set(CURLOPT_BUFFERSIZE, kReceiveBuffer);
    set(CURLOPT_CONNECTTIMEOUT_MS, long(policy_.connect_seconds * 1000));
    if (const char* file = certificate_file()) set(CURLOPT_CAINFO, file);
    if (const char* folder = certificate_folder()) set(CURLOPT_CAPATH, folder);
    set(CURLOPT_HEADERFUNCTION, &Try::on_header);
    set(CURLOPT_HEADERDATA, this);
    set(CURLOPT_WRITEFUNCTION, &Try::on_body);
    set(CURLOPT_WRITEDATA, this);
    set(CURLOPT_NOPROGRESS, 0L);
    set(CURLOPT_XFERINFOFUNCTION, &Try::on_progress);
    set(CURLOPT_XFERINFODATA, this);
    if (request_.follow_redirects) {
      set(CURLOPT_FOLLOWLOCATION, 1L);
      set(CURLOPT_MAXREDIRS, long(kMostRedirects));
    }
    set_method();
    set_headers();
  }

  static const char* user_agent() {
    static const std::string text = fmt::format("lorry/{}", kVersion);
    return text.c_str();
  }

  void set_method() {
    const std::string& method = request_.method;
    if (method == "GET") return;
    if (method == "HEAD") {
      set(CURLOPT_NOBODY, 1L);
      return;
    }
    if (method == "PUT" || method == "POST") {
      curl_off_t size = 0;
      for (const auto& span : request_.body) size += curl_off_t(span.size());
      set(method == "PUT" ? CURLOPT_UPLOAD : CURLOPT_POST, 1L);
      set(method == "PUT" ? CURLOPT_INFILESIZE_LARGE : CURLOPT_POSTFIELDSIZE_LARGE, size);
      set(CURLOPT_UPLOAD_BUFFERSIZE, kSendBuffer);
      set(CURLOPT_READFUNCTION, &Try::on_send);
      set(CURLOPT_READDATA, this);
      set(CURLOPT_SEEKFUNCTION, &Try::on_rewind);
      set(CURLOPT_SEEKDATA, this);
      return;
    }
    set(CURLOPT_CUSTOMREQUEST, method.c_str());
  }

  void set_headers() {
    bool has_type = false;
    for (const auto& [name, value] : request_.headers) {
      // An empty value needs a semicolon in libcurl's notation.
      add_header(value.empty() ? name + ";" : name + ": " + value);
      has_type = has_type || (name.size() == 12 && strcasecmp(name.c_str(), "content-type") == 0);
    }
    add_header("Expect:");  // no round trip before a body
    if (!has_type) add_header("Content-Type:");
    set(CURLOPT_HTTPHEADER, header_list_);
  }

  void add_header(const std::string& line) {
    if (auto* longer = curl_.slist_append(header_list_, line.c_str())) header_list_ = longer;
  }

  // ---- callbacks -----------------------------------------------------------------------------

  static size_t on_header(char* data, size_t one, size_t size, void* self) {
    return static_cast<Try*>(self)->take_header({data, one * size}) ? size : 0;
  }

  bool take_header(std::string_view line) {
    last_activity_ = Clock::now();
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
    if (line.starts_with("HTTP/")) {  // of a redirect, an interim or the final response
      response_.headers.clear();
      return true;
    }
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return true;
    std::string_view value = line.substr(colon + 1);
    while (!value.empty() && (value.front() == ' ' || value.front() == '\t'))
      value.remove_prefix(1);
    while (!value.empty() && value.back() == ' ') value.remove_suffix(1);
    response_.headers.emplace_back(line.substr(0, colon), value);
    return true;
  }

  /// Once, when the head is whole and before any of the body.
  bool begin_body() {
    if (head_done_) return !error_;
    head_done_ = true;
    read_status();
    if (!response_.ok()) return true;
    if (request_.on_head) {
      auto taken = request_.on_head(response_);
      if (!taken.ok()) error_ = std::move(taken).error();
      if (error_) return false;
    }
    if (!request_.into.empty() || request_.exact) {
      const auto length = response_.header("content-length");
      if (length && request_.method != "HEAD" &&
          std::strtoll(std::string(*length).c_str(), nullptr, 10) >
              static_cast<long long>(request_.into.size())) {
        return too_long();
      }
    }
    return true;
  }

  void read_status() {
    long status = 0;
    (void)curl_.easy_getinfo(handle_, CURLINFO_RESPONSE_CODE, &status);
    response_.status = int(status);
    const char* url = nullptr;
    (void)curl_.easy_getinfo(handle_, CURLINFO_EFFECTIVE_URL, &url);
    response_.url = url ? url : request_.url;
  }

  bool too_long() {
    error_ = corrupt_data(fmt::format("{}: the server sends more than the {} bytes asked for",
                                      request_.what, request_.into.size()));
    return false;
  }

  static size_t on_body(char* data, size_t one, size_t size, void* self) {
    return static_cast<Try*>(self)->take_body({data, one * size}) ? size : 0;
  }

  bool take_body(std::string_view piece) {
    const bool taken = begin_body() && deliver(piece);
    last_activity_ = Clock::now();  // the time a callback took is no stall
    return taken;
  }

  bool deliver(std::string_view piece) {
    const size_t at = size_t(response_.length);
    response_.length += int64_t(piece.size());
    if (!response_.ok()) {
      const size_t room = kMostErrorBody - std::min(kMostErrorBody, response_.body.size());
      response_.body.append(piece.substr(0, room));
      return true;
    }
    if (!request_.into.empty() || request_.exact) {
      if (piece.size() > request_.into.size() - at) return too_long();
      std::memcpy(request_.into.data() + at, piece.data(), piece.size());
      return true;
    }
    if (request_.on_data) {
      auto taken = request_.on_data(piece);
      if (!taken.ok()) error_ = std::move(taken).error();
      return !error_;
    }
    if (at == 0) reserve_body();
    response_.body.append(piece);
    return true;
  }

  void reserve_body() {
    constexpr long long kMostAtOnce = 64 << 20;  // the server only says so
    const auto length = response_.header("content-length");
    if (!length) return;
    const long long size = std::strtoll(std::string(*length).c_str(), nullptr, 10);
    if (size > 0) response_.body.reserve(size_t(std::min(size, kMostAtOnce)));
  }

  static size_t on_send(char* to, size_t one, size_t size, void* self) {
    return static_cast<Try*>(self)->give_body({to, one * size});
  }

  size_t give_body(std::span<char> to) {
    last_activity_ = Clock::now();
    size_t given = 0;
    while (given < to.size() && body_span_ < request_.body.size()) {
      const std::string_view span = request_.body[body_span_].substr(body_at_);
      const size_t n = std::min(span.size(), to.size() - given);
      std::memcpy(to.data() + given, span.data(), n);
      given += n;
      body_at_ += n;
      if (body_at_ == request_.body[body_span_].size()) {
        ++body_span_;
        body_at_ = 0;
      }
    }
    return given;
  }

  static int on_rewind(void* self, curl_off_t offset, int origin) {
    if (offset != 0 || origin != SEEK_SET) return CURL_SEEKFUNC_CANTSEEK;
    static_cast<Try*>(self)->body_span_ = static_cast<Try*>(self)->body_at_ = 0;
    return CURL_SEEKFUNC_OK;
  }

  static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t sent) {
    return static_cast<Try*>(self)->should_end(sent) ? 1 : 0;
  }

  bool should_end(curl_off_t sent) {
    if (g_stop_all.load(std::memory_order_relaxed)) return true;
    if (request_.stop && request_.stop->load(std::memory_order_relaxed)) return true;
    if (sent != sent_) {
      sent_ = sent;
      last_activity_ = Clock::now();
    }
    stalled_ = seconds_since(last_activity_) > stall_limit();
    return stalled_;
  }

  double stall_limit() const {
    return request_.stall_seconds > 0 ? request_.stall_seconds : policy_.stall_seconds;
  }

  // ---- outcomes ------------------------------------------------------------------------------

  static TryOutcome final_error(Error error) {
    TryOutcome outcome;
    outcome.error = std::move(error);
    return outcome;
  }

  static TryOutcome again(std::string reason) {
    TryOutcome outcome;
    outcome.reason = std::move(reason);
    return outcome;
  }

  TryOutcome finished() {
    if (!begin_body()) return final_error(std::move(*error_));
    if (response_.ok() && request_.exact && response_.length != int64_t(request_.into.size())) {
      return again(fmt::format("{} of {} bytes came", response_.length, request_.into.size()));
    }
    TryOutcome outcome;
    curl_off_t wait = 0;
    (void)curl_.easy_getinfo(handle_, CURLINFO_RETRY_AFTER, &wait);
    outcome.retry_after = double(wait);
    outcome.response = std::move(response_);
    return outcome;
  }

  TryOutcome failed(CURLcode code) {
    const std::string origin = url_origin(request_.url);
    switch (code) {
      case CURLE_ABORTED_BY_CALLBACK:
        if (stalled_)
          return again(fmt::format("no byte from {} for {:.0f} s", origin, stall_limit()));
        return final_error(cancelled(fmt::format("{}: the request was stopped", request_.what)));
      case CURLE_COULDNT_RESOLVE_HOST:
      case CURLE_COULDNT_RESOLVE_PROXY:
      case CURLE_COULDNT_CONNECT: {
        auto outcome = again(fmt::format("cannot reach {}: {}", origin, words(code)));
        outcome.unreachable = true;
        return outcome;
      }
      case CURLE_PARTIAL_FILE:
        return again(
            fmt::format("the connection to {} broke off after {} bytes", origin, response_.length));
      case CURLE_OPERATION_TIMEDOUT: {
        auto outcome = again(fmt::format("cannot reach {}: {}", origin, words(code)));
        outcome.unreachable = response_.headers.empty();
        return outcome;
      }
      case CURLE_GOT_NOTHING:
      case CURLE_SEND_ERROR:
      case CURLE_RECV_ERROR:
      case CURLE_SSL_CONNECT_ERROR:
      case CURLE_WEIRD_SERVER_REPLY:
      case CURLE_SEND_FAIL_REWIND:
      case CURLE_AGAIN:
        return again(fmt::format("the connection to {} failed: {}", origin, words(code)));
      case CURLE_PEER_FAILED_VERIFICATION:
      case CURLE_SSL_CACERT_BADFILE:
        return final_error(
            unavailable(fmt::format("{}: the certificate of {} cannot be trusted: {}; {}",
                                    request_.what, origin, words(code), certificate_hint())));
      case CURLE_TOO_MANY_REDIRECTS:
        return final_error(
            unavailable(fmt::format("{}: {} redirects without end", request_.what, origin)));
      case CURLE_UNSUPPORTED_PROTOCOL:
      case CURLE_URL_MALFORMAT:
        return final_error(invalid_input(
            fmt::format("{}: {} is no http:// or https:// address", request_.what, origin)));
      default:
        return final_error(unavailable(fmt::format("{}: {}", request_.what, words(code))));
    }
  }

  std::string words(CURLcode code) const {
    return *message_ ? message_ : curl_.easy_strerror(code);
  }

  const CurlLibrary& curl_;
  CURL* handle_;
  Request& request_;
  const RetryPolicy& policy_;
  curl_slist* header_list_ = nullptr;
  char message_[CURL_ERROR_SIZE] = {};
  Response response_;
  std::optional<Error> error_;
  bool head_done_ = false, stalled_ = false;
  size_t body_span_ = 0, body_at_ = 0;  ///< place in request_.body
  curl_off_t sent_ = 0;
  Clock::time_point start_, last_activity_;
};

}  // namespace

TryOutcome try_once(const CurlLibrary& curl, CURL* handle, Request& request,
                    const RetryPolicy& policy) {
  return Try(curl, handle, request, policy).run();
}

void stop_all_transfers() { g_stop_all = true; }

}  // namespace lorry::net
