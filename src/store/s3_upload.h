// Writing objects to an S3 bucket.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "store/backend.h"
#include "store/s3_client.h"

namespace lorry::store {

/// One request with CRC-32C; the guard, which may be empty, is asked before each try.
Result<> put_object(const S3Client& client, const std::string& key,
                    const std::vector<std::string_view>& body, int64_t size, uint32_t crc,
                    const Guard& guard);

/// An object that is written in sequence: up to one part in one request, more as a multipart upload
/// with several parts on their way. Memory is bounded by net::transfer_memory.
std::unique_ptr<PendingObject> start_upload(std::shared_ptr<const S3Client> client,
                                            std::string key);

}  // namespace lorry::store
