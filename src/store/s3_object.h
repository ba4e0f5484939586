// Reading objects of an S3 bucket.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "net/ranges.h"
#include "store/s3_client.h"

namespace lorry::store {

struct S3Head {
  int64_t size = 0;
  std::string etag;
};

/// nullopt if there is no such object.
Result<std::optional<S3Head>> head_object(const S3Client& client, const std::string& key);

/// A whole object in one request, its checksum verified where the server keeps one.
Result<std::string> read_object(const S3Client& client, const std::string& key);

/// The object as it was when `head` was asked for: a later version is an error, not other bytes.
std::shared_ptr<net::RangeSource> open_object(std::shared_ptr<const S3Client> client,
                                              std::string key, S3Head head);

/// From `offset` to the end; the first request tells the size and brings the first bytes.
Result<std::shared_ptr<arrow::io::InputStream>> stream_object(
    std::shared_ptr<const S3Client> client, const std::string& key, int64_t offset);

}  // namespace lorry::store
