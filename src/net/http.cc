#include "net/http.h"

#include <fmt/format.h>
#include <strings.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "base/cancel.h"
#include "base/log.h"
#include "net/curl_library.h"
#include "net/transfer.h"

namespace lorry::net {
namespace {

using Clock = std::chrono::steady_clock;

/// Tries for an address at which nobody has answered yet: a typing error should not take long.
constexpr int kTriesOfUnknownHost = 5;
/// After a stop was asked for, seconds that a failing request is still tried.
constexpr double kPatienceAfterStop = 10;
/// Seconds of trying after which the user hears of it.
constexpr double kSilence = 5;

double environment_number(const char* name, double otherwise) {
  const char* text = std::getenv(name);
  if (!text || !*text) return otherwise;
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  if (*end == '\0' && std::isfinite(value) && value > 0) return value;
  log::warn("{}={} is not a number above 0; using {}", name, text, otherwise);
  return otherwise;
}

double jitter(double most) {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return std::uniform_real_distribution<double>(0, most)(random);
}

bool is_passing(int status) {
  return status == 408 || status == 429 || (status >= 500 && status != 501 && status != 505);
}

/// "SlowDown" from an S3 error, or the start of a short plain answer; empty if there is neither.
std::string code_in(const std::string& body) {
  const size_t begin = body.find("<Code>");
  if (begin != std::string::npos) {
    const size_t end = body.find("</Code>", begin);
    if (end != std::string::npos && end - begin < 80)
      return body.substr(begin + 6, end - begin - 6);
  }
  if (body.empty() || body.size() > 200 || body.find_first_of("<\r\n{") != std::string::npos)
    return {};
  return body;
}

std::string describe(const Response& response) {
  const std::string code = code_in(response.body);
  return fmt::format("HTTP {}{} from {}", response.status, code.empty() ? "" : " (" + code + ")",
                     url_origin(response.url));
}

std::string without_query(const std::string& url) { return url.substr(0, url.find_first_of("?#")); }

}  // namespace

const RetryPolicy& RetryPolicy::standard() {
  static const RetryPolicy policy = [] {
    RetryPolicy made;
    made.attempts = int(std::max(1.0, environment_number("LORRY_HTTP_ATTEMPTS", made.attempts)));
    made.stall_seconds = environment_number("LORRY_HTTP_STALL_SECONDS", made.stall_seconds);
    return made;
  }();
  return policy;
}

std::optional<std::string_view> Response::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key.size() == name.size() && strncasecmp(key.data(), name.data(), name.size()) == 0) {
      return std::string_view(value);
    }
  }
  return std::nullopt;
}

struct Client::Impl {
  std::mutex mutex;
  std::map<std::string, std::vector<CURL*>> idle;  ///< by origin; guarded by mutex
  std::set<std::string> answered;                  ///< origins; guarded by mutex

  ~Impl() {
    auto curl = curl_library();
    if (!curl.ok()) return;
    for (auto& [origin, handles] : idle) {
      for (CURL* handle : handles) (*curl)->easy_cleanup(handle);
    }
  }

  CURL* take(const CurlLibrary& curl, const std::string& origin) {
    std::lock_guard lock(mutex);
    auto& handles = idle[origin];
    if (handles.empty()) return curl.easy_init();
    CURL* handle = handles.back();  // the one whose connection is freshest
    handles.pop_back();
    return handle;
  }

  void give(const std::string& origin, CURL* handle) {
    std::lock_guard lock(mutex);
    idle[origin].push_back(handle);
  }

  void note_answer(const std::string& origin) {
    std::lock_guard lock(mutex);
    answered.insert(origin);
  }

  bool has_answered(const std::string& origin) {
    std::lock_guard lock(mutex);
    return answered.contains(origin);
  }
};

Client::Client(RetryPolicy policy) : policy_(policy), impl_(std::make_unique<Impl>()) {}
Client::~Client() = default;

Client& Client::shared() {
  // Never destroyed: threads may be in a request when the process ends.
  static Client* const client = new Client();
  return *client;
}

namespace {

/// Waits, in steps short enough to notice a stop; false if one was asked for.
bool wait_for(double seconds, const std::atomic<bool>* stop) {
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (Clock::now() < end) {
    if (stop && stop->load()) return false;
    const std::chrono::duration<double> left = end - Clock::now();
    std::this_thread::sleep_for(std::min(left, std::chrono::duration<double>(0.1)));
  }
  return true;
}

/// The tries of one request and the time they took.
class Patience {
 public:
  Patience(const RetryPolicy& policy, const Request& request)
      : policy_(policy), request_(request) {}

  int attempt() const { return attempt_; }

  /// Waits before the next try; an error if there is to be none.
  Result<> next(const TryOutcome& outcome, const std::string& reason, bool known_host) {
    const int most = outcome.unreachable && !known_host
                         ? std::min(kTriesOfUnknownHost, policy_.attempts)
                         : policy_.attempts;
    if (outcome.retry_after > policy_.max_retry_after) {
      return unavailable(fmt::format("{}: {}, which asks to wait {:.0f} s; try again later",
                                     request_.what, reason, outcome.retry_after));
    }
    const double delay = jitter(std::min(
        policy_.max_delay, policy_.first_delay * std::pow(2.0, std::min(attempt_ - 1, 30))));
    const double wait = std::max(delay, outcome.retry_after);
    if (attempt_ >= most || elapsed() + wait > policy_.patience) return give_up(reason);
    if (cancel_requested() && after_stop() + wait > kPatienceAfterStop) {
      return cancelled(fmt::format("{}: stopped by a signal while it was tried again ({})",
                                   request_.what, reason));
    }
    tell(reason, most);
    if (!wait_for(wait, request_.stop)) {
      return cancelled(fmt::format("{}: the request was stopped", request_.what));
    }
    ++attempt_;
    return {};
  }

 private:
  double elapsed() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  double after_stop() {
    if (stop_seen_ < 0) stop_seen_ = elapsed();
    return elapsed() - stop_seen_;
  }

  void tell(const std::string& reason, int most) {
    const bool aloud = !told_ && elapsed() > kSilence;
    told_ = told_ || aloud;
    log::write(
        aloud ? log::Level::kWarn : log::Level::kDebug,
        fmt::format("{}: {}; trying again ({} of {})", request_.what, reason, attempt_ + 1, most));
  }

  Error give_up(const std::string& reason) const {
    if (attempt_ == 1) return unavailable(fmt::format("{}: {}", request_.what, reason));
    return unavailable(fmt::format("{}: {}; gave up after {} tries in {:.1f} s", request_.what,
                                   reason, attempt_, elapsed()));
  }

  const RetryPolicy& policy_;
  const Request& request_;
  const Clock::time_point start_ = Clock::now();
  double stop_seen_ = -1;  ///< when a stop was first noticed, in seconds since the start
  int attempt_ = 1;
  bool told_ = false;
};

}  // namespace

Result<Response> Client::send(Request request) const {
  LORRY_ASSIGN(const CurlLibrary* curl, curl_library());
  if (request.what.empty()) request.what = without_query(request.url);
  Patience patience(policy_, request);
  for (;;) {
    if (request.before_try) LORRY_TRY(request.before_try(request, patience.attempt()));
    const std::string origin = url_origin(request.url);
    CURL* handle = impl_->take(*curl, origin);
    if (!handle) return unavailable(request.what + ": out of memory for a connection");
    TryOutcome outcome = try_once(*curl, handle, request, policy_);
    impl_->give(origin, handle);
    if (outcome.error) return std::move(*outcome.error);
    std::string reason = outcome.reason;
    if (outcome.response) {
      impl_->note_answer(origin);
      Response& response = *outcome.response;
      response.attempts = patience.attempt();
      if (is_passing(response.status)) {
        reason = describe(response);
      } else if (request.retry_because) {
        if (auto because = request.retry_because(response)) reason = std::move(*because);
      }
      if (reason.empty()) return std::move(response);
    }
    LORRY_TRY(patience.next(outcome, reason, impl_->has_answered(origin)));
  }
}

}  // namespace lorry::net
