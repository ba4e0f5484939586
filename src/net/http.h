// HTTP requests: blocking, on pooled libcurl handles, tried again when that may help.
//
// A caller describes one request and gets one answer or one error. Below that the client keeps
// connections open, watches for stalls, checks that the body is as long as announced, and repeats
// what failed for a passing reason (RetryPolicy). libcurl itself stays behind http.cc.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace lorry::net {

/// Name and value, in order; names compare without regard to case.
using Headers = std::vector<std::pair<std::string, std::string>>;

/// How long and how often a request is tried. What is tried again: no connection, time-outs,
/// resets, stalls, bodies shorter than announced, 408, 429 and every 5xx but 501 and 505. The waits
/// grow as first_delay * 2^n up to max_delay, each drawn evenly from [0, that] (full jitter), and
/// are no shorter than what Retry-After asks for (at most max_retry_after). After a stop was asked
/// for (base/cancel.h) nothing is tried again for longer than 10 s, so that a checkpoint can still
/// be written.
struct RetryPolicy {
  int attempts = 10;             ///< tries in all; LORRY_HTTP_ATTEMPTS
  double patience = 600;         ///< seconds after which no new try begins
  double first_delay = 0.1;      ///< seconds
  double max_delay = 20;         ///< seconds
  double max_retry_after = 120;  ///< seconds; a server that asks for more is given up on
  double connect_seconds = 15;   ///< until a connection stands
  double stall_seconds = 30;     ///< without a byte in either direction; LORRY_HTTP_STALL_SECONDS

  /// The defaults, with the two environment variables applied (read once a process).
  static const RetryPolicy& standard();
};

struct Response {
  int status = 0;
  Headers headers;     ///< of the last response in a chain of redirects
  std::string body;    ///< what went neither to `into` nor to `on_data`
  std::string url;     ///< after redirects
  int64_t length = 0;  ///< bytes of body received
  int attempts = 1;

  bool ok() const { return status >= 200 && status < 300; }
  std::optional<std::string_view> header(std::string_view name) const;
};

/// One request. Views and spans must outlive `send`. The body of a success goes to `into`, else to
/// `on_data`, else into Response::body; the body of anything else (up to 1 MB) into Response::body.
struct Request {
  std::string method = "GET";  ///< GET, HEAD, PUT, POST, DELETE
  std::string url;
  Headers headers;
  std::vector<std::string_view> body;  ///< sent one after another; Content-Length is set

  /// Caller's memory for the body. A success whose body is longer than this is corrupt data;
  /// `exact` makes a shorter one a reason to try again.
  std::span<char> into;
  bool exact = false;
  /// Called with each piece of a success's body; its error ends the request and is not retried.
  std::function<Result<>(std::string_view)> on_data;
  /// Called once a try, when the head of a success is there and before its body. An error ends the
  /// request and is not retried. Forget here what an earlier try delivered to on_data.
  std::function<Result<>(const Response&)> on_head;
  /// Called before each try; may change url and headers (a new signature, a Range that goes on).
  std::function<Result<>(Request&, int attempt)> before_try;
  /// A reason to try again in what looks final ("SlowDown" in a 400), or nullopt.
  std::function<std::optional<std::string>(const Response&)> retry_because;

  /// Followed at most 10 times; Authorization goes to the first host only.
  bool follow_redirects = true;
  /// Seconds without a byte that are borne; 0: the policy's.
  double stall_seconds = 0;
  /// What the request is about, for messages: "s3://bucket/key". The URL without its query if
  /// empty.
  std::string what;
  /// Ends the request early when it becomes true (a reader that goes away).
  const std::atomic<bool>* stop = nullptr;
};

/// Thread-safe; one for the process is enough (`Client::shared`). Handles and their connections
/// are kept, by host, for the next request.
class Client {
 public:
  explicit Client(RetryPolicy policy = RetryPolicy::standard());
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  static Client& shared();

  const RetryPolicy& policy() const { return policy_; }

  /// The final answer, whatever its status: a 404 is a value. Errors: unavailable, with the last
  /// reason and the number of tries, when the policy is exhausted (a status that is worth a retry
  /// included); corrupt data; cancelled; or what a callback returned.
  Result<Response> send(Request request) const;

 private:
  struct Impl;
  RetryPolicy policy_;
  std::unique_ptr<Impl> impl_;
};

/// "https://host:port" of a URL, lower case; empty if it is none.
std::string url_origin(std::string_view url);
/// RFC 3986 percent-encoding of everything but unreserved characters and those in `keep`.
std::string url_encode(std::string_view text, std::string_view keep = "");
/// The inverse; '+' stays.
std::string url_decode(std::string_view text);

}  // namespace lorry::net
