#include "cli/bucket_uri.h"

namespace lorry::cli {

std::string bucket_uri(const std::string& value, bool from_flag) {
  if (value.empty()) return "./bucket";
  const bool path = value.starts_with(".") || value.find('/') != std::string::npos;
  return from_flag || path ? value : "s3://" + value;
}

}  // namespace lorry::cli
