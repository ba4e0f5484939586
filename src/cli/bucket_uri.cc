#include "cli/bucket_uri.h"

#include <fmt/format.h>

namespace lorry::cli {

Result<std::string> bucket_uri(const std::string& value, bool from_flag) {
  if (value.empty()) return std::string("./bucket");
  const bool path = value.starts_with(".") || value.find('/') != std::string::npos;
  const std::string uri = from_flag || path ? value : "s3://" + value;
  if (uri.find("://") != std::string::npos && !uri.starts_with("file://"))
    return unsupported(
        fmt::format("bucket {}{}: remote buckets are not supported yet; give a local directory "
                    "with --bucket DIR",
                    uri, from_flag ? "" : " (from BUCKET_NAME)"));
  return uri;
}

}  // namespace lorry::cli
