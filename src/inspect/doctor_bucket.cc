#include "inspect/doctor_bucket.h"

#include <fmt/format.h>
#include <unistd.h>  // getpid, gethostname

#include <chrono>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <random>

#include "base/crc32c.h"
#include "store/bucket.h"
#include "store/s3_client.h"
#include "store/s3_object.h"
#include "store/s3_upload.h"

namespace lorry::inspect {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kProbe[] = "lorry doctor was here\n";
/// Seconds that a clock may be off before it is worth a word, and before S3 refuses.
constexpr double kClockWarning = 60, kClockLimit = 15 * 60;
/// Milliseconds a request from which a run in the same region is slowed by them.
constexpr double kSlow = 300;

std::string probe_name() {
  char host[64] = "";
  ::gethostname(host, sizeof(host) - 1);
  std::random_device random;
  return fmt::format(".lorry-doctor-{}-{}-{:08x}", host, ::getpid(), random());
}

double milliseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

/// Writes, reads back and removes one small object; what failed, in words.
Result<> write_and_read_back(const store::Bucket& bucket) {
  const std::string name = probe_name();
  LORRY_TRY(bucket.write(name, kProbe).with_context("writing"));
  const auto back = bucket.read(name);
  const auto removed = bucket.remove(name);
  if (!back.ok()) return back.error().with_context("reading back");
  if (*back != kProbe)
    return corrupt_data(fmt::format("{}: what was written is not what is read back", name));
  return Result<>(removed).with_context("removing");
}

Checked failed(const Error& error, std::string advice = {}) {
  return {{fail("bucket", error.message, std::move(advice))}};
}

// ---- S3
// ------------------------------------------------------------------------------------------

/// Seconds since 1970 of an HTTP date; nullopt for anything else.
std::optional<double> http_date(const net::Response& response) {
  const auto text = response.header("date");
  std::tm utc{};
  if (!text || !::strptime(std::string(*text).c_str(), "%a, %d %b %Y %H:%M:%S", &utc))
    return std::nullopt;
  return static_cast<double>(::timegm(&utc));
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// "s3://NAME/prefix" as its two parts.
std::pair<std::string, std::string> split_s3(const std::string& uri) {
  std::string rest = uri.substr(uri.find("://") + 3);
  const size_t slash = std::min(rest.find('/'), rest.size());
  std::string prefix = rest.substr(slash);
  while (prefix.starts_with('/')) prefix.erase(0, 1);
  while (prefix.ends_with('/')) prefix.pop_back();
  return {rest.substr(0, slash), prefix};
}

class S3Check {
 public:
  S3Check(const store::S3Client& client, std::string prefix, std::string origin)
      : client_(client), prefix_(std::move(prefix)), origin_(std::move(origin)) {}

  Checked run() {
    if (auto error = first_error()) {
      auto checked = failed(*error);
      // A clock that is off is why a signature is refused; otherwise it is no news here.
      if (ahead_ && std::abs(*ahead_) > kClockLimit)
        checked.findings.push_back(judge_clock(*ahead_));
      return checked;
    }
    const store::S3Place& place = client_.place();
    const std::string text = fmt::format(
        "{} at {} (region {}, {}): lists, writes, reads back, removes; {:.0f} ms a request",
        client_.name_of(prefix_), place.endpoint.empty() ? "AWS" : place.endpoint, place.region,
        origin_, latency_);
    Checked checked;
    checked.findings.push_back(
        latency_ < kSlow ? ok("bucket", text)
                         : warn("bucket", text, "a machine nearer to it would be faster"));
    if (ahead_) checked.findings.push_back(judge_clock(*ahead_));
    return checked;
  }

 private:
  std::optional<Error> first_error() {
    if (auto listed = list(); !listed.ok()) return listed.error();
    const std::string key = store::join_path(prefix_, probe_name());
    const std::string_view body = kProbe;
    const auto begin = Clock::now();
    const auto put = store::put_object(client_, key, {body}, int64_t(body.size()), crc32c(body),
                                       /*guard=*/{});
    if (!put.ok()) return put.error().with_context("it lists, but writing fails");
    const auto back = store::read_object(client_, key);
    const auto removed = remove(key);
    latency_ = milliseconds_since(begin) / 3;
    if (!back.ok()) return back.error().with_context("it takes objects, but reading fails");
    if (*back != body)
      return corrupt_data(client_.name_of(key) + ": what was written is not what is read back");
    if (!removed.ok()) return removed.error().with_context("it takes objects, but removing fails");
    return std::nullopt;
  }

  Result<> list() {
    store::S3Request request;
    request.query = {
        {"list-type", "2"}, {"prefix", prefix_.empty() ? "" : prefix_ + "/"}, {"max-keys", "1"}};
    LORRY_ASSIGN(const auto response, client_.send(request));
    if (const auto theirs = http_date(response)) ahead_ = *theirs - now();
    // S3 says in XML what is wrong; a proxy or a web server at that address does not.
    if (!response.ok() && store::failure_of(response).code.empty())
      return unavailable(fmt::format(
          "{} answers HTTP {}, and not as an S3 server does; is AWS_ENDPOINT_URL_S3 right?",
          net::url_origin(response.url), response.status));
    if (!response.ok()) return client_.error_of(response, "GET", "");
    if (response.body.find("ListBucketResult") == std::string::npos)
      return unavailable(client_.name_of("") +
                         ": the answer is no list of objects; is AWS_ENDPOINT_URL_S3 that of an S3 "
                         "server?");
    return {};
  }

  Result<> remove(const std::string& key) {
    store::S3Request request;
    request.method = "DELETE";
    request.key = key;
    LORRY_TRY(client_.expect(request));
    return {};
  }

  const store::S3Client& client_;
  const std::string prefix_;
  const std::string origin_;
  std::optional<double> ahead_;  ///< seconds that the server's clock is before ours
  double latency_ = 0;           ///< milliseconds
};

Checked check_s3(const std::string& uri, double seconds) {
  const auto [name, prefix] = split_s3(uri);
  if (name.empty())
    return failed(usage_error(uri + ": no bucket's name; write s3://NAME[/prefix]"));
  auto place = store::find_s3_place(name);
  if (!place.ok()) return failed(place.error());
  const auto credentials = store::standard_credentials();
  const auto known = credentials->get();
  if (!known.ok()) return failed(known.error());
  const net::Client http(short_policy(seconds));
  const store::S3Client client(*std::move(place), credentials, http);
  return S3Check(client, prefix, known->anonymous() ? "no keys" : "keys from " + known->origin)
      .run();
}

Checked check_by_arrow(const std::string& uri) {
  const auto bucket = store::Bucket::open(uri, /*create=*/false);
  if (!bucket.ok()) return failed(bucket.error());
  const auto begin = Clock::now();
  if (const auto done = write_and_read_back(**bucket); !done.ok()) return failed(done.error());
  return {{ok("bucket", fmt::format("{}: lists, writes, reads back, removes; {:.0f} ms a request",
                                    uri, milliseconds_since(begin) / 3))}};
}

}  // namespace

net::RetryPolicy short_policy(double seconds) {
  net::RetryPolicy policy;
  policy.attempts = 2;
  policy.connect_seconds = policy.stall_seconds = seconds * 0.4;
  policy.patience = policy.max_retry_after = seconds * 0.5;
  policy.max_delay = 0.5;
  return policy;
}

Finding judge_clock(double ahead) {
  const double off = std::abs(ahead);
  if (off < 2) return ok("clock", "within 2 s of the S3 server's");
  const std::string text =
      fmt::format("{:.0f} s {} the S3 server's", off, ahead > 0 ? "behind" : "ahead of");
  if (off < kClockWarning) return ok("clock", text);
  return warn(
      "clock", text,
      off < kClockLimit
          ? "set it (timedatectl set-ntp true): S3 refuses what is 15 minutes off"
          : "set it (timedatectl set-ntp true); lorry signs with the server's time so long");
}

Checked check_local_bucket(const std::string& uri, bool may_write) {
  namespace fs = std::filesystem;
  const std::string path = uri.starts_with("file://") ? uri.substr(7) : uri;
  std::error_code error;
  if (!fs::exists(path, error))
    return {{ok("bucket", fmt::format("{} is not there yet; the first import makes it", path))}};
  const auto bucket = store::Bucket::open(uri, /*create=*/false);
  if (!bucket.ok()) return failed(bucket.error());
  if (const auto listed = (*bucket)->list(""); !listed.ok()) return failed(listed.error());
  if (!may_write) return {{ok("bucket", fmt::format("{}: can be read", path))}};
  if (const auto done = write_and_read_back(**bucket); !done.ok())
    return failed(done.error(),
                  "give this user the right to write there, or name another --bucket");
  return {{ok("bucket", fmt::format("{}: lists, writes, reads back, removes", path))}};
}

Checked check_remote_bucket(const std::string& uri, double seconds) {
  if (uri.starts_with("s3://") || uri.starts_with("s3a://")) return check_s3(uri, seconds);
  return check_by_arrow(uri);
}

}  // namespace lorry::inspect
