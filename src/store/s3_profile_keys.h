// Keys that a profile of ~/.aws leads to: its own, those of a role, of single sign-on, or of a
// program. The order is that of botocore.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "store/s3_credentials.h"

namespace lorry::store {

/// Keys of the environment, the container or the instance, as `credential_source` names them
/// ("Environment", "EcsContainer", "Ec2InstanceMetadata"); nullopt: it has none.
using MachineKeys = std::function<Result<std::optional<Credentials>>(const std::string& source)>;

/// Those of the profile that AWS_PROFILE names, or of "default". nullopt: it says nothing of keys.
/// Follows role_arn with source_profile (chains too), credential_source or web_identity_token_file;
/// sso_session and sso_start_url, by the token that `aws sso login` keeps; aws_access_key_id;
/// credential_process. Fails, naming the profile, where one of these cannot be had.
Result<std::optional<Credentials>> profile_keys(const MachineKeys& machine);

}  // namespace lorry::store
