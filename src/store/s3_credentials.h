// Who we are towards S3: keys from the environment, a web identity, a profile, a container or an
// instance role, in that order, renewed before they expire.
#pragma once

#include <ctime>
#include <memory>
#include <string>

#include "base/result.h"

namespace lorry::store {

struct Credentials {
  std::string access_key, secret_key;
  std::string token;        ///< of temporary credentials
  std::time_t expires = 0;  ///< 0: never
  std::string origin;       ///< "the environment", "profile x of ...", for messages
  bool anonymous() const { return access_key.empty(); }
};

/// Thread-safe.
class CredentialSource {
 public:
  virtual ~CredentialSource() = default;
  /// Valid ones: temporary credentials are renewed five minutes before they expire.
  virtual Result<Credentials> get() = 0;
  /// Forgets what `get` keeps, for the server says that it has expired. False if asking again
  /// cannot bring others.
  virtual bool renew() = 0;
};

/// What the environment, profile files and this machine offer; what is there is found out by the
/// first `get`. LORRY_S3_ANONYMOUS=1 asks for unsigned requests. Fails, saying where was looked,
/// when there is nothing.
std::shared_ptr<CredentialSource> standard_credentials();

/// The region of the chosen profile; empty if there is none.
std::string profile_region();

}  // namespace lorry::store
