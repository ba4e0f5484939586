// AWS Signature Version 4, as S3 wants it, and the services that give keys for it.
#pragma once

#include <ctime>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/http.h"
#include "store/s3_credentials.h"

namespace lorry::store {

/// Query parameters, not yet encoded, in any order.
using Query = std::vector<std::pair<std::string, std::string>>;

/// "a=1&b=x%20y", sorted by encoded name, as the signature and the URL have it.
std::string canonical_query(const Query& query);

inline constexpr char kUnsignedPayload[] = "UNSIGNED-PAYLOAD";
/// SHA-256 of nothing.
inline constexpr char kEmptyPayload[] =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct ToSign {
  std::string method, host;
  std::string path;   ///< encoded
  std::string query;  ///< canonical
  std::string payload_hash;
  std::string service = "s3";
};

/// Adds Host, x-amz-date, x-amz-content-sha256, x-amz-security-token and Authorization to
/// `headers`, all of which are signed. `now` in UTC seconds. Thread-safe.
class S3Signer {
 public:
  void sign(const ToSign& request, const Credentials& credentials, const std::string& region,
            std::time_t now, net::Headers& headers);

 private:
  std::string signing_key(const Credentials& credentials, const std::string& region,
                          const std::string& day, const std::string& service);

  std::mutex mutex_;
  std::string key_for_, key_;  ///< the last key and what it was made of; guarded by mutex_
};

/// HMAC (RFC 2104) with SHA-256; 32 bytes.
std::string hmac_sha256(std::string_view key, std::string_view message);

}  // namespace lorry::store
