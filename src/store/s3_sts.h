// Temporary keys: what the security token service gives for a role, and the JSON in which others
// hand keys out.
#pragma once

#include <ctime>
#include <string>

#include "base/result.h"
#include "store/s3_credentials.h"

namespace lorry::store {

/// A role that is to be taken on. All but `arn` may be empty.
struct Role {
  std::string arn;
  std::string session_name;  ///< by default "lorry"
  std::string external_id;
  std::string duration_seconds;
  std::string region;  ///< of the service; empty: the global one
};

/// AssumeRole, signed with `by`. AWS_ENDPOINT_URL_STS names another server, here and below.
Result<Credentials> assume_role(const Role& role, const Credentials& by);
/// AssumeRoleWithWebIdentity, with the token in a file and without a signature.
Result<Credentials> assume_role_with_web_identity(const Role& role, const std::string& token_file);

/// {"AccessKeyId", "SecretAccessKey", "Token" or "SessionToken", "Expiration"}: the document of
/// containers, instances and programs (credential_process).
Result<Credentials> keys_from_document(const std::string& text, const std::string& origin);

/// "2026-11-22T20:30:00Z" as UTC seconds; 0 for anything else.
std::time_t parse_utc(const std::string& text);

/// A file that holds one token, without the line break at its end.
Result<std::string> read_token_file(const std::string& path);

}  // namespace lorry::store
