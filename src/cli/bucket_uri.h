// From what the user wrote to the bucket's URI.
#pragma once

#include <string>

namespace lorry::cli {

/// `value` is a path or a URI where it came from --bucket (`from_flag`). From BUCKET_NAME a bare
/// name is the guide's way to say s3://name; a value with a '/' or a leading '.' is taken as it
/// is. Empty: ./bucket.
std::string bucket_uri(const std::string& value, bool from_flag);

}  // namespace lorry::cli
