// Requests to one S3 bucket: addressed, signed, repeated where S3 says so, errors in plain words.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "net/http.h"
#include "store/bucket.h"  // Guard
#include "store/s3_credentials.h"
#include "store/s3_signer.h"

namespace lorry::store {

/// Where a bucket is, from the environment.
struct S3Place {
  std::string bucket;
  std::string endpoint;     ///< "http://host:port"; empty: AWS, by region
  std::string region;       ///< "auto" where the server is not AWS and takes it
  bool path_style = false;  ///< http://host/bucket/key rather than http://bucket.host/key
};

/// AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL; AWS_REGION, AWS_DEFAULT_REGION, the profile's region;
/// LORRY_S3_ADDRESSING=path|virtual (by default virtual on AWS and on services known to want it,
/// path elsewhere and for names with dots). Usage error for a value that is none.
Result<S3Place> find_s3_place(const std::string& bucket);

/// What an S3 server said was wrong: <Error><Code>..., or a status alone.
struct S3Failure {
  int status = 0;
  std::string code, message;
};
S3Failure failure_of(const net::Response& response);

struct S3Request {
  std::string method = "GET";
  std::string key;  ///< empty: the bucket
  Query query;
  net::Headers headers;
  std::vector<std::string_view> body;
  std::span<char> into;
  bool exact = false;
  std::function<Result<>(std::string_view)> on_data;
  std::function<Result<>(const net::Response&)> on_head;
  std::function<std::optional<std::string>(const net::Response&)> retry_because;
  /// Asked before each try; its error ends the request.
  Guard guard;
  const std::atomic<bool>* stop = nullptr;
  double stall_seconds = 0;
};

/// Thread-safe.
class S3Client {
 public:
  S3Client(S3Place place, std::shared_ptr<CredentialSource> credentials,
           const net::Client& http = net::Client::shared());

  /// The final answer, whatever its status. The wrong region, a clock that is off and expired
  /// credentials are put right, as far as they can be, and the request is repeated.
  Result<net::Response> send(const S3Request& request) const;
  /// As `send`; an answer that is no success becomes `error_of`.
  Result<net::Response> expect(const S3Request& request) const;

  /// What an answer that is no success says, for the user. `key` may be empty.
  Error error_of(const net::Response& response, std::string_view method,
                 const std::string& key) const;
  /// "s3://bucket/key".
  std::string name_of(const std::string& key) const;

  const S3Place& place() const { return place_; }
  /// Whether checksums are sent along; a server that refuses them turns this off.
  bool sends_checksums() const { return checksums_; }

 private:
  struct Address {
    std::string scheme, host, path;
  };
  Address address(const std::string& key) const;
  std::string region() const;
  net::Request prepare(const S3Request& request) const;
  Result<> sign(const S3Request& request, net::Request& http) const;
  bool put_right(const net::Response& response, const S3Request& request, int round) const;
  bool adopt_region(const net::Response& response, const S3Failure& failure) const;
  bool adopt_clock(const net::Response& response) const;

  const S3Place place_;
  const std::shared_ptr<CredentialSource> credentials_;
  const net::Client& http_;
  mutable S3Signer signer_;
  mutable std::mutex mutex_;
  mutable std::string region_;                    ///< guarded by mutex_
  mutable std::atomic<int64_t> clock_offset_{0};  ///< seconds that the server's clock is ahead
  mutable std::atomic<bool> sign_payload_{false};
  mutable std::atomic<bool> checksums_{true};
};

}  // namespace lorry::store
